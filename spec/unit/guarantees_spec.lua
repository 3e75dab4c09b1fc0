-- docs/guarantees.md names tests; here it is held to it. Names that are made at run time are compared by
-- the pieces between their …, since only these stand in the source.
local LEAST_PIECE = 4 -- bytes; shorter pieces say nothing

local function read(path)
  local file = io.open(path)
  local text = file and file:read("a")
  if file then
    file:close()
  end
  return text
end

-- Formats in names take the place of what varies.
local function plain(source)
  return (source:gsub("%%[sdq]", "…"))
end

local function pieces(name)
  local found = {}
  for piece in (name .. "…"):gmatch("(.-)…") do
    piece = piece:match("^%s*(.-)%s*$")
    if #piece >= LEAST_PIECE then
      found[#found + 1] = piece
    end
  end
  return found
end

describe("the page of guarantees", function()
  local page = assert(read("docs/guarantees.md"))

  for row in page:gmatch("\n(|[^\n]+|)") do
    local promise, proofs = row:match("^| (.-) | (.+) |$")
    if promise and promise ~= "promise" then
      it("proves: " .. promise, function()
        local path, count = nil, 0
        local marked = proofs:gsub("`([^`]+)`", "\0%1\0"):gsub('"([^"]+)"', "\1%1\1")
        for is_path, text in marked:gmatch("([%z\1])(.-)%1") do
          count = count + 1
          if is_path == "\0" then
            path = text:match("^spec/.+%.lua$")
            assert.is_truthy(text:match("^%./dev ") or text == "fuzz/" or read(text), text .. " does not exist")
          elseif path then
            local source = plain(assert(read(path)))
            for _, piece in ipairs(pieces(text)) do
              assert.is_truthy(source:find(piece, 1, true), ("%s has no test %q"):format(path, piece))
            end
          end
        end
        assert.is_true(count > 0, "nothing is named")
      end)
    end
  end
end)
