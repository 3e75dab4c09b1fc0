-- The assertion that an answer is a problem document (RFC 9457) and says what it should.
local assert = require "luassert"

---Checks status, media type and members; returns the document.
---@param answer http.Answer
---@param status integer
---@param slug? string the last part of `type`
---@return table
local function problem(answer, status, slug)
  assert.equal(status, answer.status, answer.body)
  assert.equal("application/problem+json", answer.headers["content-type"])
  local document = answer:json()
  assert.equal(status, document.status)
  assert.is_string(document.type)
  assert.is_string(document.title)
  assert.is_string(document.detail)
  assert.is_string(document.instance)
  assert.equal(answer.headers["x-request-id"], document.request_id)
  if slug then
    assert.equal(slug, document.type:match("([^/]+)$"))
  end
  return document
end

return problem
