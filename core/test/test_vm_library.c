/* The functions that stand in place of Lua's own: what they do is compared with those, on cases
 * that are written down and on random ones. */
#include "vm.h"

#include <stdint.h>
#include <stdlib.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "error.h"
#include "test.h"

enum {
    MEMORY_LIMIT = 64 * 1024 * 1024,
    RANDOM_PATTERNS = 60000,
    RANDOM_TABLES = 6000,
};

/* describe(f, ...) calls f and puts all it returns or raises into a text. */
static const char prelude[] =
    "local function show(v)\n"
    "  if type(v) ~= 'table' then return type(v) .. ':' .. tostring(v) end\n"
    "  local t = {}\n"
    "  for i = -3, 24 do t[#t + 1] = tostring(rawget(v, i)) end\n"
    "  return '{' .. table.concat(t, ' ') .. '}'\n"
    "end\n"
    "local function list(...)\n"
    "  local t = {}\n"
    "  for i = 1, select('#', ...) do t[i] = show((select(i, ...))) end\n"
    "  return table.concat(t, ', ')\n"
    "end\n"
    "function describe(f, ...) return list(pcall(f, ...)) end\n"
    "function each(s, p, i)\n"
    "  local t = {}\n"
    "  for a, b, c in string.gmatch(s, p, i) do\n"
    "    t[#t + 1] = '(' .. list(a, b, c) .. ')'\n"
    "    if #t > 30 then break end\n"
    "  end\n"
    "  return table.concat(t)\n"
    "end\n"
    "function sub(s, p, r, n)\n"
    "  local seen = {}\n"
    "  local result, count = string.gsub(s, p, function(...)\n"
    "    seen[#seen + 1] = list(...)\n"
    "    if #seen % 3 == 0 then return nil end\n"
    "    return #seen % 3 == 1 and '<' or #seen\n"
    "  end, n)\n"
    "  return result, count, table.concat(seen, ';')\n"
    "end\n"
    "local mt = {__index = function(t, i) return i < 6 and i end, __len = function() return 5 "
    "end}\n"
    "function proxy()\n"
    "  return setmetatable({}, {__index = mt.__index, __len = mt.__len,\n"
    "    __newindex = function(t, i, v) rawset(t, i, v) end})\n"
    "end\n"
    "function then_show(f, t, ...) return list(pcall(f, t, ...)), show(t) end\n";

/* The two that are compared. */
struct pair {
    struct vm *vm;      /* owned */
    lua_State *library; /* owned; Lua's own */
};

static void open_pair(struct pair *pair)
{
    struct error err;
    pair->vm = vm_create(MEMORY_LIMIT, &err);
    pair->library = luaL_newstate();
    luaL_openlibs(pair->library);
    if (luaL_dostring(pair->vm->lua, prelude) || luaL_dostring(pair->library, prelude)) {
        printf("Bail out! %s\n", lua_tostring(pair->library, -1));
        exit(1);
    }
}

static void close_pair(struct pair *pair)
{
    vm_destroy(pair->vm);
    lua_close(pair->library);
}

/* What a text evaluates to, as describe() shows it. */
static const char *evaluate(lua_State *L, const char *text)
{
    lua_settop(L, 0);
    lua_getglobal(L, "describe");
    if (luaL_loadstring(L, text) != LUA_OK) {
        return lua_tostring(L, -1);
    }
    lua_pcall(L, 1, 1, 0);
    return lua_tostring(L, -1);
}

static const char *const cases[] = {
    /* find and match */
    "string.find('hello world', 'o w')",
    "string.find('hello', 'l', 1, true)",
    "string.find('hello', '')",
    "string.find('hello', '', 6)",
    "string.find('hello', '', 7)",
    "string.find('hello', '', -100)",
    "string.find('hello', 'l', -2)",
    "string.find('a+b', '+', 1, true)",
    "string.find('a.b', '.', 2, true)",
    "string.find('a\\0b\\0c', '\\0c')",
    "string.find('a\\0b', '%z')",
    "string.find('a\\0b', '[\\0]b')",
    "string.find('', '')",
    "string.find('', '^$')",
    "string.find('abc', '^b')",
    "string.find('abc', '^b', 2)",
    "string.find('a^b', '^', 1, true)",
    "string.find('a$b', '$b')",
    "string.find('ab', 'b$')",
    "string.find('x', '%a', math.maxinteger)",
    "string.find('x', '%a', math.mininteger)",
    "string.find(12345, 34)",
    "string.find('abc')",
    "string.find('abc', {})",
    "string.find('abc', 'b', 'x')",
    "string.find(('ab'):rep(100000) .. 'abb', 'abb')",
    "string.find(('ab'):rep(100000), 'abb')",
    "string.find(('ab'):rep(100000), 'b', 150001, true)",
    "string.find(('ab'):rep(100000), ('ab'):rep(99999), 2, true)",
    "string.find(('ab'):rep(100000), ('ab'):rep(100001), 1, true)",
    "string.find(('ab'):rep(100000), '', 7, true)",
    "string.find(('x'):rep(65536) .. 'yz' .. ('x'):rep(9), 'yz')",
    "string.match('key = value', '^(%w+)%s*=%s*(%w+)$')",
    "string.match('  trim  ', '^%s*(.-)%s*$')",
    "string.match('2024-05-06', '(%d+)-(%d+)-(%d+)')",
    "string.match('abc', '()b()')",
    "string.match('hello', '(h)(e)(l)(l)(o)')",
    "string.match('aXb', '%u')",
    "string.match('f(a(b)c)d', '%b()')",
    "string.match('f(a(b)c', '%b()')",
    "string.match('xx', '%bxx')",
    "string.match('xaxbx', '%bxx')",
    "string.match('THE (quick) fox', '%f[%a]%a+%f[%A]')",
    "string.match('the end', '%f[%w]%w+$')",
    "string.match('abab', '(ab)%1')",
    "string.match('abac', '(ab)%1')",
    "string.match('[[x]]', '%[(%[)(.-)%](%])')",
    "string.match('a]b', '[]]')",
    "string.match('a]b', '[^]]+')",
    "string.match('a-b', '[a-]+')",
    "string.match('a-b', '[-a]+')",
    "string.match('x^y', '[x^]+')",
    "string.match('x%y', '[%%x]+')",
    "string.match('é', '[\\xc3\\xa9]+')",
    "string.match('zzz', 'z-$')",
    "string.match('zzz', '^z-$')",
    "string.match('aaab', 'a-b')",
    "string.match('ab', 'a?b?c?')",
    "string.match('0x1F', '^0[xX](%x+)$')",
    "string.match('a.b.c', '[^.]*$')",
    "string.match('\\255', '[\\200-\\255]')",
    "string.match('b', '[a-%w]')",
    "string.match('-', '[a-%w]')",
    "string.match('x', '[%a-z]')",
    /* malformed */
    "string.match('a', '%')",
    "string.match('a', '[a')",
    "string.match('a', '[a%')",
    "string.match('a', '[^')",
    "string.match('a', '[')",
    "string.match('a', '[]')",
    "string.match('a', '(a')",
    "string.match('a', 'a)')",
    "string.match('a', '%1')",
    "string.match('a', '(%1)')",
    "string.match('a', '(a)%2')",
    "string.match('a', '%0')",
    "string.match('aa', '()a%1')",
    "string.match('a', '%b')",
    "string.match('a', '%bx')",
    "string.match('a', '%f')",
    "string.match('a', '%fa')",
    "string.match(('a'):rep(40), ('(a)'):rep(33))",
    "string.match(('a'):rep(40), ('(a)'):rep(32))",
    "string.match(('a'):rep(300), ('a?'):rep(198))",
    "string.match(('a'):rep(300), ('a?'):rep(199))",
    "string.match(('a'):rep(300), ('a?'):rep(200))",
    "string.match(('a'):rep(300), ('a*'):rep(200))",
    "string.find(('a'):rep(300), ('a'):rep(250))",
    /* gmatch */
    "each('one two three', '%a+')",
    "each('k=v, a=b', '(%w+)=(%w+)')",
    "each('abc', '')",
    "each('abc', 'b*')",
    "each('abc', '()')",
    "each('a^b^', '^')",
    "each('hello', 'l', 4)",
    "each('hello', 'l', -1)",
    "each('hello', 'l', 99)",
    "each('hello', '')",
    "each('abc', '%')",
    "string.gmatch('abc')",
    "string.gmatch({}, 'a')",
    /* gsub */
    "string.gsub('hello world', 'o', '0')",
    "string.gsub('hello world', 'o', '0', 1)",
    "string.gsub('hello world', 'o', '0', 0)",
    "string.gsub('hello world', 'o', '0', -1)",
    "string.gsub('hello', '', '-')",
    "string.gsub('hello', 'l*', '-')",
    "string.gsub('abc', '%w', '%0%0')",
    "string.gsub('abc', '(a)(b)', '%2%1')",
    "string.gsub('abc', 'b', '%1')",
    "string.gsub('abc', 'b', '%2')",
    "string.gsub('abc', 'b', '%%')",
    "string.gsub('abc', 'b', '%')",
    "string.gsub('abc', 'b', '%x')",
    "string.gsub('abc', '()b', '%1')",
    "string.gsub('abc', '^a', 'x')",
    "string.gsub('aaa', '^a', 'x')",
    "string.gsub('abc def', '%w+', {abc = 'x', def = false})",
    "string.gsub('abc def', '%w+', {abc = 1, def = 2.5})",
    "string.gsub('abc', '%w', {a = {}})",
    "string.gsub('abc', '%w', function() return {} end)",
    "string.gsub('abc', '%w', function() error('x', 0) end)",
    "string.gsub('abc', '(%w)(%w)', function(a, b) return b .. a end)",
    "string.gsub('abc', '()', function(n) return n end)",
    "string.gsub('abc', 'b', 5)",
    "string.gsub('abc', 'b', true)",
    "string.gsub('abc', 'b')",
    "string.gsub('abc', 'b', 'x', 'y')",
    "string.gsub('a\\0b', '%z', '0')",
    "string.gsub('a b', '%s', '\\0')",
    "string.gsub(('ab'):rep(90), 'a', ('x'):rep(50))",
    "string.gsub(('ab'):rep(900), 'a', function(a) return a .. a .. a end)",
    "('x'):gsub('x', '%9')",
    /* rep, lower, upper, reverse, format */
    "string.rep('ab', 3)",
    "string.rep('ab', 3, ',')",
    "string.rep('ab', 1, ',')",
    "string.rep('ab', 0, ',')",
    "string.rep('ab', -1)",
    "string.rep('', 100, ',')",
    "string.rep('', 100)",
    "#string.rep('abc', 100001, '12')",
    "string.rep('abc', 30001, '12'):sub(-40)",
    "string.rep(('x'):rep(70000), 3, 'y') == ('x'):rep(70000) .. 'y' .. ('x'):rep(70000) .. 'y' .. "
    "('x'):rep(70000)",
    "string.rep('x', 1 << 62)",
    "string.rep('xx', 1 << 63 - 1)",
    "string.rep('x')",
    "string.rep('x', 1.5)",
    "string.rep(7, '2')",
    "string.upper('abcXYZ é 1')",
    "string.lower('abcXYZ É 1')",
    "string.upper('')",
    "string.upper({})",
    "string.reverse('abc\\0d')",
    "string.reverse('')",
    "string.reverse(12)",
    "string.format('%5.1f|%-5d|%q', 1.25, 3, 'a\\nb\"')",
    "string.format('%s %s', 1)",
    "string.format('%99999d', 1)",
    "string.format('%y', 1)",
    "string.format()",
    "string.pack('z', 'abc')",
    "string.unpack('<i2', '\\1\\0')",
    "string.packsize('i4i4')",
    "string.pack('y')",
    "string.pack({})",
    /* utf8 */
    "utf8.len('añb')",
    "utf8.len('a\\xffb')",
    "utf8.len('añb', 3)",
    "utf8.len('abc', 5)",
    "utf8.len('abc', 2, 9)",
    "utf8.len('abc', -1, -1)",
    "utf8.len(('añ'):rep(100000))",
    "utf8.len(('ñ'):rep(100000), 3, -3)",
    "utf8.len(('a'):rep(65537) .. 'ñ' .. ('b'):rep(70000))",
    "utf8.len(('a'):rep(65536) .. 'ñ' .. ('b'):rep(70000))",
    "utf8.len(('a'):rep(65535) .. '€' .. ('b'):rep(70000))",
    "utf8.len(('a'):rep(65535) .. 'ñ\\xb1' .. ('b'):rep(70000))",
    "utf8.len(('a'):rep(65537) .. '\\xc3')",
    "utf8.len(('a'):rep(200000) .. '\\xff')",
    "utf8.len(('\\u{7fffffff}'):rep(20000))",
    "utf8.len(('\\u{7fffffff}'):rep(20000), 1, -1, true)",
    "utf8.len(('a'):rep(200000), 200002)",
    "utf8.len(('a'):rep(200000), 200001)",
    "utf8.len(('a'):rep(200000), 0)",
    "utf8.len(('a'):rep(200000), -300000)",
    "utf8.len(('a'):rep(200000), 3, 300000)",
    "utf8.len(('a'):rep(200000), 30, 20)",
    /* table */
    "then_show(table.insert, {1, 2, 3}, 4)",
    "then_show(table.insert, {1, 2, 3}, 1, 4)",
    "then_show(table.insert, {1, 2, 3}, 4, 4)",
    "then_show(table.insert, {1, 2, 3}, 5, 4)",
    "then_show(table.insert, {1, 2, 3}, 0, 4)",
    "then_show(table.insert, {1, 2, 3})",
    "then_show(table.insert, {1, 2, 3}, 1, 2, 3)",
    "then_show(table.insert, {1, 2, 3}, 'x', 2)",
    "then_show(table.insert, proxy(), 2, 9)",
    "table.insert(5, 5)",
    "table.insert('abc', 1)",
    "table.insert(setmetatable({}, {__len = function() return math.maxinteger end}), 1)",
    "then_show(table.remove, {1, 2, 3})",
    "then_show(table.remove, {1, 2, 3}, 1)",
    "then_show(table.remove, {1, 2, 3}, 3)",
    "then_show(table.remove, {1, 2, 3}, 4)",
    "then_show(table.remove, {}, 0)",
    "then_show(table.remove, {})",
    "then_show(table.remove, {[0] = 7}, 0)",
    "then_show(table.remove, proxy(), 2)",
    "table.remove(nil)",
    "then_show(table.move, {1, 2, 3}, 1, 3, 2)",
    "then_show(table.move, {1, 2, 3}, 2, 3, 1)",
    "then_show(table.move, {1, 2, 3}, 1, 3, 5)",
    "then_show(table.move, {1, 2, 3}, 1, 0, 5)",
    "then_show(table.move, {1, 2, 3}, -2, 3, 0)",
    "then_show(table.move, {1, 2, 3}, math.mininteger, 3, 0)",
    "then_show(table.move, {1, 2, 3}, 1, math.maxinteger, 2)",
    "then_show(table.move, {1, 2, 3}, 1, 2, math.maxinteger)",
    "then_show(table.move, {1, 2, 3}, 1, 2)",
    "then_show(table.move, proxy(), 1, 3, 3)",
    "table.move({1, 2, 3}, 1, 3, 2, {9, 9})",
    "table.move({1, 2, 3}, 1, 3, 1, 7)",
    "table.move(7, 1, 3, 1)",
    "table.concat({1, 'b', 2.5})",
    "table.concat({1, 'b', 2.5}, ', ')",
    "table.concat({1, 2, 3}, '-', 2)",
    "table.concat({1, 2, 3}, '-', 2, 3)",
    "table.concat({1, 2, 3}, '-', 3, 2)",
    "table.concat({1, 2, 3}, '-', 2, 5)",
    "table.concat({1, {}, 3})",
    "table.concat({[math.maxinteger] = 'z'}, '', math.maxinteger, math.maxinteger)",
    "table.concat(proxy(), '.')",
    "table.concat({}, {})",
    "table.concat(5)",
    "then_show(table.sort, {3, 1, 2})",
    "then_show(table.sort, {3, 1, 2}, function(a, b) return a > b end)",
    "then_show(table.sort, {'b', 'a', 'C'})",
    "then_show(table.sort, {2.5, 1, -3})",
    "then_show(table.sort, {})",
    "then_show(table.sort, {1})",
    "then_show(table.sort, {1, 1, 1, 1, 1, 1, 1, 1})",
    "then_show(table.sort, {5, 3}, nil)",
    "then_show(table.sort, proxy(), function(a, b) return a > b end)",
    "table.sort({1, 'x'})",
    "table.sort({1, 2}, 5)",
    "table.sort(5)",
    "table.sort(setmetatable({}, {__len = function() return 1 << 40 end}))",
    "table.sort({1, 2, 3}, function() error('stop', 0) end)",
    "table.sort({1, 2, 3, 4, 5, 6, 7, 8, 9}, function() return true end)",
};

static void test_cases(void)
{
    struct pair pair;
    char text[512], expected[16384];
    open_pair(&pair);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "return %s", cases[i]);
        snprintf(expected, sizeof expected, "%s", evaluate(pair.library, text));
        check_text(evaluate(pair.vm->lua, text), expected, "%s is as in Lua", cases[i]);
    }
    close_pair(&pair);
}

/* ---- random cases ---- */

static uint32_t state = 12345;

static uint32_t draw(uint32_t below)
{
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
}

/* Up to `most` of the pieces, one behind the other. */
static void draw_text(char *text, const char *const *pieces, uint32_t count, uint32_t most)
{
    *text = '\0';
    for (uint32_t left = draw(most + 1); left > 0; left--) {
        strcat(text, pieces[draw(count)]);
    }
}

static const char *const subject_pieces[] = {"a", "b", "aa", "ab", "A",  "1", " ", "(", ")",
                                             "x", ".", "%",  "-b", "b)", "]", "^", "$", "\xc3\xa9"};
static const char *const pattern_pieces[] = {
    "a",  "b",    ".",    "%a",   "%A", "%d", "%w",       "%s", "[ab]", "[^a]",  "[a-b]",  "[%w]",
    "[]", "[^]]", "*",    "+",    "-",  "?",  "*",        "+",  "-",    "?",     "(",      ")",
    "()", "(a)",  "(.-)", "(b*)", "%1", "%2", "%b()",     "^",  "$",    "%f[a]", "%f[%W]", "%",
    "[",  "x",    "%.",   "%(",   "%)", "%]", "\xc3\xa9", "%u", "%p",   "[-a]",  "[a-]",   "]",
};
static const char *const replacement_pieces[] = {"x", "%0", "%1", "%2", "%%", "<", "%", ">"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Leaves on the stack what describe() says of a function of the string library, or of one above. */
static const char *call_string(lua_State *L, const char *name, const char *subject,
                               const char *pattern, const char *replacement, int number)
{
    lua_settop(L, 0);
    lua_getglobal(L, "describe");
    lua_getglobal(L, "string");
    if (lua_getfield(L, -1, name) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_getglobal(L, name);
    }
    lua_remove(L, 2);
    lua_pushstring(L, subject);
    lua_pushstring(L, pattern);
    if (replacement) {
        lua_pushstring(L, replacement);
    }
    if (number < 20) {
        lua_pushinteger(L, number);
    }
    lua_pcall(L, lua_gettop(L) - 1, 1, 0);
    return lua_tostring(L, -1);
}

static void test_random_patterns(void)
{
    static const struct {
        const char *name;
        bool replaces;
    } functions[] = {
        {"find", false}, {"match", false}, {"each", false}, {"gsub", true}, {"sub", true}};
    struct pair pair;
    char subject[128], pattern[128], replacement[64];
    int different = 0, good = 0;
    open_pair(&pair);
    for (int i = 0; i < RANDOM_PATTERNS && different < 5; i++) {
        size_t f = draw(COUNT(functions));
        int number = (int)draw(60) - 8;
        draw_text(subject, subject_pieces, COUNT(subject_pieces), 10);
        draw_text(pattern, pattern_pieces, COUNT(pattern_pieces), 7);
        draw_text(replacement, replacement_pieces, COUNT(replacement_pieces), 3);
        const char *third = functions[f].replaces ? replacement : NULL;
        const char *ours =
            call_string(pair.vm->lua, functions[f].name, subject, pattern, third, number);
        const char *theirs =
            call_string(pair.library, functions[f].name, subject, pattern, third, number);
        good += strncmp(theirs, "boolean:true", 12) == 0;
        if (strcmp(ours, theirs) != 0) {
            different++;
            printf("# %s('%s', '%s', '%s', %d)\n# Lua:  %s\n# ours: %s\n", functions[f].name,
                   subject, pattern, replacement, number, theirs, ours);
        }
    }
    check_int(different, 0, "random patterns do what they do in Lua");
    check(good > RANDOM_PATTERNS / 4, "of those enough were good patterns (%d)", good);
    close_pair(&pair);
}

/* sorts a table of `count` numbers below `below` and says whether that is as it should be. */
static const char sort_text[] =
    "local count, below, seed, kind = ...\n"
    "local t, sums = {}, 0\n"
    "for i = 1, count do\n"
    "  seed = (seed * 1664525 + 1013904223) & 0xffffffff\n"
    "  t[i] = kind == 0 and (seed >> 8) % below or kind == 1 and i or kind == 2 and -i\n"
    "    or i % 2 == 0 and i or -i\n"
    "  sums = sums + t[i] * t[i] + t[i]\n"
    "end\n"
    "if seed % 2 == 0 then table.sort(t) else table.sort(t, function(a, b) return a < b end) end\n"
    "for i = 2, count do if t[i - 1] > t[i] then return false end end\n"
    "for i = 1, count do sums = sums - t[i] * t[i] - t[i] end\n"
    "return sums == 0 and #t == count";

static void test_random_sorts(void)
{
    struct pair pair;
    int wrong = 0;
    open_pair(&pair);
    lua_State *L = pair.vm->lua;
    for (int i = 0; i < RANDOM_TABLES; i++) {
        uint32_t count = draw(i % 100 == 0 ? 3000 : 40);
        lua_settop(L, 0);
        luaL_loadstring(L, sort_text);
        lua_pushinteger(L, count);
        lua_pushinteger(L, 1 + draw(i % 2 ? 5 : 1000));
        lua_pushinteger(L, draw(1000000));
        lua_pushinteger(L, draw(4));
        bool sorted = lua_pcall(L, 4, 1, 0) == LUA_OK && lua_toboolean(L, -1);
        wrong += !sorted;
    }
    check_int(wrong, 0, "random tables are sorted");
    close_pair(&pair);
}

int main(void)
{
    test_cases();
    test_random_patterns();
    test_random_sorts();
    return test_end();
}
