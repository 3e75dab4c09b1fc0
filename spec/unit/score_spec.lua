local score = require "scripts.score"

describe("the score formula", function()
  local cases = {
    { value = 5432, users = 1, expected = 10865 },
    { value = 0, users = 1, expected = 1 },
    { value = 0, users = 1000, expected = 1 },
    { value = 10, users = 4, expected = 13.5 },
    { value = -2, users = 2, expected = -2 },
    { value = 0.1, users = 10, expected = 1 + 0.1 + 0.1 / 10 },
    { value = 1e300, users = 2, expected = 1 + 1e300 + 1e300 / 2 },
  }

  for _, case in ipairs(cases) do
    it(("turns %g among %d users into %g"):format(case.value, case.users, case.expected), function()
      assert.equal(case.expected, score.formula(case.value, case.users))
    end)
  end
end)
