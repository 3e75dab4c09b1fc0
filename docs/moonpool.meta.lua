---@meta moonpool
-- What scripts find in `require "moonpool"`, for editors (LuaLS). Never run; spec/unit/meta_spec.lua
-- compares it with what the server registers.

---@class moonpool.App
---@field db moonpool.Db
---@field json moonpool.Json
local app = {}

---@alias moonpool.Handler fun(req: moonpool.Request): any, any, table<string, string>?
---@alias moonpool.Next fun(req: moonpool.Request): any, any, table<string, string>?
---@alias moonpool.Middleware fun(req: moonpool.Request, next: moonpool.Next): any, any, table<string, string>?

---What a route asks of its requests. A request that does not keep to it is answered 422 with a pointer
---to each fault, and the handler is not called.
---@class moonpool.RouteOptions
---@field deadline? number seconds from the headers' arrival to the end of the answer, at most 3600; by default 2
---@field body? moonpool.Schema of the decoded JSON body
---@field query? table<string, moonpool.Schema> the parameters behind '?'; they are converted as it says
---@field params? table<string, moonpool.Schema> the {parameters} of the path; converted likewise
---@field body_limit? integer bytes; by default the server's (1 MiB)

---A subset of JSON Schema, with its names.
---@class moonpool.Schema
---@field type? string|string[] "object", "array", "string", "number", "integer", "boolean", "null"
---@field properties? table<string, moonpool.Schema>
---@field required? string[]
---@field additionalProperties? boolean false refuses members that are not in `properties`
---@field minLength? integer characters
---@field maxLength? integer characters
---@field pattern? string a Lua pattern
---@field format? "uuid"|"email"|"date-time"
---@field enum? any[]
---@field const? any
---@field minimum? number
---@field maximum? number
---@field exclusiveMinimum? number
---@field exclusiveMaximum? number
---@field multipleOf? number
---@field items? moonpool.Schema
---@field minItems? integer
---@field maxItems? integer
---@field uniqueItems? boolean of strings, numbers or booleans
---@field nullable? boolean
---@field default? any put in where the member is missing
---@field title? string for readers
---@field description? string for readers

---Registers a handler for GET, and for HEAD. `pattern` is literal segments, `{name}` for one segment and
---`{name*}` for the rest. A handler returns status, body and headers, or a body alone. Tables, rows and
---results become JSON; nil is an answer without a body.
---@param pattern string
---@param options moonpool.RouteOptions
---@param handler moonpool.Handler
---@overload fun(pattern: string, handler: moonpool.Handler)
function app.get(pattern, options, handler) end

---@param pattern string
---@param options moonpool.RouteOptions
---@param handler moonpool.Handler
---@overload fun(pattern: string, handler: moonpool.Handler)
function app.post(pattern, options, handler) end

---@param pattern string
---@param options moonpool.RouteOptions
---@param handler moonpool.Handler
---@overload fun(pattern: string, handler: moonpool.Handler)
function app.put(pattern, options, handler) end

---@param pattern string
---@param options moonpool.RouteOptions
---@param handler moonpool.Handler
---@overload fun(pattern: string, handler: moonpool.Handler)
function app.patch(pattern, options, handler) end

---@param pattern string
---@param options moonpool.RouteOptions
---@param handler moonpool.Handler
---@overload fun(pattern: string, handler: moonpool.Handler)
function app.delete(pattern, options, handler) end

---Registers a handler for any method.
---@param method string in capitals
---@param pattern string
---@param options moonpool.RouteOptions
---@param handler moonpool.Handler
---@overload fun(method: string, pattern: string, handler: moonpool.Handler)
function app.route(method, pattern, options, handler) end

---Routes below a prefix, behind middleware of their own.
---@param prefix string
---@param ... moonpool.Middleware
---@return moonpool.Group
function app.group(prefix, ...) end

---Middleware for all routes: calls `next(req)`, or answers by itself.
---@param middleware moonpool.Middleware
function app.use(middleware) end

---Raises: the request is answered with this status and a problem document (RFC 9457).
---@param status integer
---@param detail? string
---@param members? table<string, any> more members of the document
---@param headers? table<string, any> of the answer, such as Retry-After
function app.fail(status, detail, members, headers) end

---Writes a line to the server's log, with the request's id.
---@param level "debug"|"info"|"warn"|"error"
---@param message any
function app.log(level, message) end

---Registers routes as `app` does, below its prefix and behind its middleware.
---@class moonpool.Group
---@field get fun(pattern: string, options: moonpool.RouteOptions|moonpool.Handler, handler?: moonpool.Handler)
---@field post fun(pattern: string, options: moonpool.RouteOptions|moonpool.Handler, handler?: moonpool.Handler)
---@field put fun(pattern: string, options: moonpool.RouteOptions|moonpool.Handler, handler?: moonpool.Handler)
---@field patch fun(pattern: string, options: moonpool.RouteOptions|moonpool.Handler, handler?: moonpool.Handler)
---@field delete fun(pattern: string, options: moonpool.RouteOptions|moonpool.Handler, handler?: moonpool.Handler)
---@field route fun(method: string, pattern: string, options: any, handler?: moonpool.Handler)
---@field use fun(middleware: moonpool.Middleware)

---The exact JSON codec; also `require "json"`.
---@class moonpool.Json
---@field encode fun(value: any): string
---@field decode fun(text: string): any
---@field null lightuserdata
---@field empty_array any
---@field array fun(list: table): table the same table, to be written as an array even when it is empty

---@class moonpool.Request
---@field method string
---@field path string still percent-encoded
---@field params table<string, any> decoded; strings unless the route's `params` converts them
---@field query table<string, any> decoded; strings unless the route's `query` converts them
---@field headers table<string, string> names in any case
---@field body any the decoded JSON body; nil if there is none
---@field raw_body string the bytes of the body, "" if there are none
---@field media_type string of the body, "" if none was said
---@field id string the X-Request-Id
---@field client string the peer's address
local request = {}

---@return number # seconds left until the deadline
function request:left() end

---What a statement that fails raises, and pcall catches.
---@class moonpool.Error
---@field code string the problem's type, such as "conflict": docs/scripting.md lists them
---@field status integer what the client hears if nobody catches it
---@field message string
---@field sqlstate? string
---@field constraint? string
---@field statement? string the name of the statement
---@field item? integer its place in the batch
---@field row? integer the row of copy_from, or of a run of :bulk rows, that was refused
---@field where? string file:line of the call

---A row is a plain table by the columns' names. NULL is absent, and null in JSON. A column named
---"profile.city" is `row.profile.city`; an object whose columns are all NULL is NULL.
---@alias moonpool.Row table<string, any>

---Rows in order: `#rows`, `rows[i]` and `ipairs(rows)`. Read-only, and freed when the request ends: a row
---taken out of it may be kept, the result may not.
---@alias moonpool.Rows moonpool.Row[]

---The database, each call a transaction of its own. `statement` is a name from the SQL folder, or SQL
---text. A single select may be executed twice, by read-only transactions; one that writes after all is
---executed once. A function that writes and catches errors belongs into a transaction: else its write is lost.
---@class moonpool.Db
local db = {}

---@param statement string
---@param ... any parameters; nil and json.null are NULL
---@return moonpool.Rows
function db:query(statement, ...) end

---@param statement string
---@param ... any
---@return moonpool.Row? # the first row, nil if there is none
function db:query_row(statement, ...) end

---@param statement string
---@param ... any
---@return integer # rows affected
function db:exec(statement, ...) end

---Remembers a statement for send_batch().
---@param statement string
---@param ... any
function db:queue(statement, ...) end

---Sends what was queued, all of it in one transaction.
---@return moonpool.Results
function db:send_batch() end

---Stores many rows by COPY, in a transaction of its own; see Tx:copy_from().
---@param table_name string
---@param columns string[]
---@param rows any[][]|fun(): any[]?
---@return integer # how many they were
function db:copy_from(table_name, columns, rows) end

---Calls `fn` with a transaction; commits when it returns, rolls back when it raises. Returns what it
---returned.
---@generic T
---@param options moonpool.TransactionOptions
---@param fn fun(tx: moonpool.Tx): T
---@return T
---@overload fun(self: moonpool.Db, fn: fun(tx: moonpool.Tx): any): any
function db:transaction(options, fn) end

---A transaction to be ended by hand. Left open, it is rolled back and logged when the handler ends.
---@param options? moonpool.TransactionOptions
---@return moonpool.Tx
function db:begin(options) end

---A member's part of a group: waits until the group was committed and gives the output for this input.
---Input and output are JSON values of at most 8 kB. Raises inside a transaction.
---@alias moonpool.GroupCall fun(input: any): any

---@class moonpool.GroupOptions
---@field max? integer the most inputs taken at once; 64 by default, at most 256
---@field serialize? string a table whose lock orders the groups, of all hosts; waited for before inputs are taken

---Makes a group-committed function, while scripts are loaded. Requests that call it at the same time, in
---whatever worker, are handed together to `fn`, in one transaction; it returns an output for each input.
---If it fails, it is called anew for each input by itself.
---@param name string its own among the groups; 1 to 63 bytes
---@param options moonpool.GroupOptions
---@param fn fun(tx: moonpool.Tx, inputs: any[]): any[]
---@return moonpool.GroupCall
---@overload fun(self: moonpool.Db, name: string, fn: fun(tx: moonpool.Tx, inputs: any[]): any[]): moonpool.GroupCall
function db:group(name, options, fn) end

---The results of a batch in the order queued, `n` of them (nil is among them, so `#` does not tell): of an
---:exec statement the count, of :one a row or nil, of :many rows. Rows of one :bulk statement that were
---queued one after the other have one result, their count.
---@class moonpool.Results
---@field n integer

---@class moonpool.TransactionOptions
---@field isolation? "read committed"|"repeatable read"|"serializable"
---@field read_only? boolean
---@field deferrable? boolean
---@field retries? integer more calls of the function, after serialization failures, deadlocks or changed tables; by default none
---@field timeout? number seconds for all of it, retries included; then it raises "transaction-timeout"
---@field serialize? string|{ key: string } a table, or a key of up to 200 bytes: those that name it take turns

---@class moonpool.Tx
local tx = {}

---Sends what is queued, then this statement.
---@param statement string
---@param ... any
---@return moonpool.Rows
function tx:query(statement, ...) end

---@param statement string
---@param ... any
---@return moonpool.Row?
function tx:query_row(statement, ...) end

---@param statement string
---@param ... any
---@return integer # rows affected
function tx:exec(statement, ...) end

---Remembers a statement for send_batch(), or one row of a :bulk statement: the rows queued one after the
---other are sent as one. What is never sent goes with COMMIT.
---@param statement string
---@param ... any
function tx:queue(statement, ...) end

---Sends what was queued in one trip.
---@return moonpool.Results
function tx:send_batch() end

---Sends what was queued without waiting for it, so that PostgreSQL works while the script goes on. Rows of
---a :bulk statement that are queued behind are a statement of their own. The results come from send_batch()
---all the same.
function tx:flush() end

---Stores many rows by COPY. A row is a list with a value per column; nil and json.null are NULL. A
---function is called for one row after the other until it returns nil; it may not use the transaction.
---@param table_name string with its schema before a dot, or without
---@param columns string[]
---@param rows any[][]|fun(): any[]?
---@return integer # how many they were
function tx:copy_from(table_name, columns, rows) end

---Calls `fn`; when it raises, only what it did is rolled back, and the error goes on.
---@generic T
---@param fn fun(tx: moonpool.Tx): T
---@return T
function tx:savepoint(fn) end

---For transactions from db:begin().
function tx:commit() end

---For transactions from db:begin(). Does nothing on one that has ended.
function tx:rollback() end

return app
