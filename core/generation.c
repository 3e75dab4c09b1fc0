/* What a generation owns, its threads at rest, and the SQL texts its scripts have used. */
#include "generation.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "error.h"
#include "router.h"
#include "vm.h"

/* SQL texts remembered, and so prepared; a script that makes up more than these has them parsed
 * each time. */
enum { TEXT_SLOTS = 4096, MOST_TEXTS = 1000 };

struct generation *generation_create(size_t lua_memory, struct error *err)
{
    struct generation *generation = memory_zalloc(sizeof *generation);
    arena_init(&generation->arena);
    catalog_init(&generation->catalog);
    generation->router = router_create();
    generation->text_slots = memory_zalloc(TEXT_SLOTS * sizeof(struct statement *));
    generation->holders = 1;
    generation->vm = vm_create(lua_memory, err);
    if (!generation->vm) {
        generation_release(generation);
        return NULL;
    }
    generation->vm->owner = generation;
    return generation;
}

static void destroy(struct generation *generation)
{
    vm_destroy(generation->vm);
    router_destroy(generation->router);
    catalog_finish(&generation->catalog);
    row_forms_finish(&generation->forms);
    arena_finish(&generation->arena);
    free(generation->text_slots);
    free(generation);
}

void generation_hold(struct generation *generation)
{
    generation->holders++;
}

void generation_release(struct generation *generation)
{
    if (generation && --generation->holders == 0) {
        destroy(generation);
    }
}

struct generation *generation_of(struct lua_State *L)
{
    return vm_of(L)->owner;
}

static struct statement *new_text(struct arena *arena, const char *text, size_t length)
{
    struct statement *statement = arena_zalloc(arena, sizeof *statement);
    statement->kind = STATEMENT_TEXT;
    statement_set_sql(statement, arena, text, length);
    return statement;
}

const struct statement *generation_statement(struct generation *generation, const char *text,
                                             size_t length, struct arena *arena)
{
    const struct statement *named = catalog_find(&generation->catalog, text);
    if (named || statement_is_name(text)) {
        return named;
    }
    uint64_t key = statement_hash(text, length);
    size_t slot = key & (TEXT_SLOTS - 1);
    for (struct statement *s; (s = generation->text_slots[slot]); slot = (slot + 1) % TEXT_SLOTS) {
        if (s->key == key && strcmp(s->sql, text) == 0) {
            return s;
        }
    }
    if (generation->text_count == MOST_TEXTS) {
        return new_text(arena, text, length);
    }
    struct statement *statement = new_text(&generation->arena, text, length);
    statement->key = key;
    generation->text_slots[slot] = statement;
    generation->text_count++;
    return statement;
}

struct route *generation_group(struct generation *generation, const char *name)
{
    for (struct generation_group *g = generation ? generation->groups : NULL; g; g = g->next) {
        if (strcmp(g->name, name) == 0) {
            return &g->route;
        }
    }
    return NULL;
}

int generation_add_group(struct generation *generation, const char *name, int function)
{
    if (generation_group(generation, name)) {
        return -1;
    }
    struct generation_group *group = arena_zalloc(&generation->arena, sizeof *group);
    group->name = arena_strdup(&generation->arena, name);
    group->route.pattern = group->name;
    group->route.where = group->name;
    group->route.function = function;
    group->next = generation->groups;
    generation->groups = group;
    return 0;
}

/* Leaves the reference on the stack as an integer. */
static int make_thread(lua_State *L)
{
    lua_newthread(L);
    lua_pushinteger(L, luaL_ref(L, LUA_REGISTRYINDEX));
    return 1;
}

int generation_take_thread(struct generation *generation, struct script_thread *ret_thread)
{
    if (generation->thread_count > 0) {
        *ret_thread = generation->threads[--generation->thread_count];
        return 0;
    }
    lua_State *L = generation->vm->lua;
    lua_pushcfunction(L, make_thread);
    if (lua_pcall(L, 0, 1, 0) != LUA_OK) {
        lua_pop(L, 1);
        return -1;
    }
    ret_thread->reference = (int)lua_tointeger(L, -1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, ret_thread->reference);
    ret_thread->lua = lua_tothread(L, -1);
    lua_pop(L, 2);
    return 0;
}

static void drop_thread(struct generation *generation, struct script_thread *thread)
{
    luaL_unref(generation->vm->lua, LUA_REGISTRYINDEX, thread->reference);
}

void generation_tidy(struct generation *generation)
{
    while (generation->thread_count > 0) {
        drop_thread(generation, &generation->threads[--generation->thread_count]);
    }
    vm_tidy(generation->vm);
}

void generation_return_thread(struct generation *generation, struct script_thread *thread)
{
    if (vm_reset_thread(generation->vm, thread->lua) &&
        generation->thread_count < GENERATION_THREADS) {
        generation->threads[generation->thread_count++] = *thread;
    } else {
        drop_thread(generation, thread);
    }
    thread->lua = NULL;
}
