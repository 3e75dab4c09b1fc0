/* Modules: `require`, which finds what was preloaded and then scripts of the source snapshot, and
 * the loading of a snapshot. Nothing is read from disk. */
#include "vm.h"

#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "error.h"
#include "source.h"
#include "vm_parts.h"

/* In the registry: the names of the modules being loaded, outermost first. */
static const char loading_key[] = "moonpool.loading";

/* Raises if `name` is being loaded already, naming the way round. */
static void refuse_cycle(lua_State *L, const char *name)
{
    luaL_Buffer chain;
    bool inside = false;
    luaL_getsubtable(L, LUA_REGISTRYINDEX, loading_key);
    int loading = lua_gettop(L);
    lua_Integer count = luaL_len(L, loading);
    luaL_buffinit(L, &chain);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_geti(L, loading, i);
        inside = inside || strcmp(lua_tostring(L, -1), name) == 0;
        if (inside) {
            luaL_addvalue(&chain);
            luaL_addstring(&chain, " -> ");
        } else {
            lua_pop(L, 1);
        }
    }
    luaL_pushresult(&chain);
    if (inside) {
        luaL_error(L, "modules require each other: %s%s", lua_tostring(L, -1), name);
    }
    lua_settop(L, loading - 1);
}

/* Appends `name` to the modules being loaded, or with NULL takes the last one off. */
static void set_loading(lua_State *L, const char *name)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, loading_key);
    lua_Integer count = luaL_len(L, -1);
    lua_pushstring(L, name);
    lua_seti(L, -2, name ? count + 1 : count);
    lua_pop(L, 1);
}

/* Calls the loader on top of the stack and puts the value of the module there instead. */
static void run_loader(lua_State *L, const char *name, const char *path)
{
    refuse_cycle(L, name);
    set_loading(L, name);
    lua_pushstring(L, name);
    lua_pushstring(L, path);
    int status = lua_pcall(L, 2, 1, 0);
    set_loading(L, NULL);
    if (status != LUA_OK) {
        lua_error(L);
    }
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, true);
    }
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

static void run_file(lua_State *L, const char *name, const struct source_file *file)
{
    lua_pushfstring(L, "@%s", file->path);
    int status = luaL_loadbufferx(L, file->data, file->length, lua_tostring(L, -1), "t");
    lua_remove(L, -2);
    if (status != LUA_OK) {
        lua_error(L);
    }
    run_loader(L, name, file->path);
}

/* Pushes the field `name` of a table in the registry; pops it again if it is false or nil. */
static bool push_known(lua_State *L, const char *table, const char *name)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, table);
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
    if (lua_toboolean(L, -1)) {
        return true;
    }
    lua_pop(L, 1);
    return false;
}

static bool find_script(lua_State *L, const char *name, struct source_file *ret_file)
{
    const struct source *source = vm_of(L)->source;
    const char *stem = luaL_gsub(L, name, ".", "/");
    bool found = false;
    for (int i = 0; i < 2 && !found; i++) {
        const char *path = lua_pushfstring(L, i == 0 ? "%s.lua" : "%s/init.lua", stem);
        found = source_find_script(source, path, ret_file) == 0;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return found;
}

static void require_script(lua_State *L, const char *name)
{
    struct source_file file;
    if (!vm_of(L)->source) {
        luaL_error(L,
                   "module '%s' is not loaded: modules are loaded at start, "
                   "so require it at the top of a script",
                   name);
    }
    if (strchr(name, '/')) {
        luaL_error(L, "module '%s' not found: write '.' between folders, not '/'", name);
    }
    if (!find_script(L, name, &file)) {
        const char *stem = luaL_gsub(L, name, ".", "/");
        luaL_error(L, "module '%s' not found: there is no script %s.lua or %s/init.lua", name, stem,
                   stem);
    }
    run_file(L, name, &file);
}

static int require(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    if (push_known(L, LUA_LOADED_TABLE, name)) {
        return 1;
    }
    if (push_known(L, LUA_PRELOAD_TABLE, name)) {
        run_loader(L, name, ":preload:");
    } else {
        require_script(L, name);
    }
    return 1;
}

/* Runs a script of the top level unless a `require` did. Its module name is its file's. */
static void load_script(lua_State *L, const struct source_file *file)
{
    const char *name = lua_pushlstring(L, file->name, strlen(file->name) - strlen(".lua"));
    if (!push_known(L, LUA_LOADED_TABLE, name)) {
        run_file(L, name, file);
    }
    lua_pop(L, 2);
}

static int load_scripts(lua_State *L)
{
    const struct source *source = vm_of(L)->source;
    struct source_file file;
    for (uint32_t i = 0; source_script(source, i, &file) == 0; i++) {
        if (!strchr(file.name, '/')) {
            load_script(L, &file);
        }
    }
    return 0;
}

int vm_load(struct vm *vm, const struct source *source, uint64_t deadline, struct error *err)
{
    lua_State *L = vm->lua;
    vm->source = source;
    vm_enter(vm, L, deadline, deadline);
    lua_pushcfunction(L, load_scripts);
    int status = lua_pcall(L, 0, 0, 0);
    vm_leave(vm);
    vm->source = NULL;
    lua_sethook(L, NULL, 0, 0);
    if (status != LUA_OK) {
        vm_error(L, err, NULL, 0);
        return -1;
    }
    return vm->interrupted ? error_set(err, ERROR_SCRIPT, "loading the scripts takes too long") : 0;
}

/* Makes the function on top of the stack the loader of `name`. */
static void preload(lua_State *L, const char *name)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_insert(L, -2);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

void vm_preload_c(struct vm *vm, const char *name, lua_CFunction open)
{
    lua_pushcfunction(vm->lua, open);
    preload(vm->lua, name);
}

void vm_preload_lua(struct vm *vm, const char *name, const char *text, size_t length)
{
    lua_State *L = vm->lua;
    lua_pushfstring(L, "=%s", name);
    if (luaL_loadbufferx(L, text, length, lua_tostring(L, -1), "t") != LUA_OK) {
        lua_error(L);
    }
    lua_remove(L, -2);
    preload(L, name);
}

void vm_open_modules(lua_State *L)
{
    lua_pushcfunction(L, vm_open_cjson);
    preload(L, "cjson");
    lua_pushcfunction(L, require);
    lua_setglobal(L, "require");
}
