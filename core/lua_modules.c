/* The files of core/lua, taken in by the assembler; LUA_FOLDER comes from meson.build. */
#include "lua_modules.h"

#include "lua_stamp.h"

/* Global, since link-time optimization may put what refers to them elsewhere. */
#define INCLUDE_FILE(symbol, file)                                                                 \
    __asm__(".section .rodata\n.globl " #symbol ", " #symbol "_end\n" #symbol                      \
            ":\n.incbin \"" LUA_FOLDER "/" file "\"\n" #symbol "_end:\n.byte 0\n.previous\n");     \
    extern const char symbol[], symbol##_end[]

INCLUDE_FILE(lua_moonpool, "moonpool.lua");
INCLUDE_FILE(lua_database, "database.lua");
INCLUDE_FILE(lua_validation, "validation.lua");
INCLUDE_FILE(lua_schema, "schema.lua");
INCLUDE_FILE(lua_schema_definition, "schema_definition.lua");
INCLUDE_FILE(lua_schema_faults, "schema_faults.lua");
INCLUDE_FILE(lua_schema_formats, "schema_formats.lua");

const struct lua_module lua_modules[] = {
    {"moonpool", lua_moonpool, lua_moonpool_end},
    {"moonpool.database", lua_database, lua_database_end},
    {"moonpool.validation", lua_validation, lua_validation_end},
    {"moonpool.schema", lua_schema, lua_schema_end},
    {"moonpool.schema_definition", lua_schema_definition, lua_schema_definition_end},
    {"moonpool.schema_faults", lua_schema_faults, lua_schema_faults_end},
    {"moonpool.schema_formats", lua_schema_formats, lua_schema_formats_end},
};

const size_t lua_module_count = sizeof lua_modules / sizeof *lua_modules;
