// The API of the sample application in Node, with fastify and postgres.js, as its peer in the
// benchmark. Settings come from the environment: DATABASE_URL, LISTEN (host:port), POOL_MAX (for all
// workers together), WORKERS.
import cluster from "node:cluster";
import fastify from "fastify";
import postgres from "postgres";

const DEADLINE_MS = 2000;
const MAX_PIPELINE = 20000; // a batch updates every user

const workers = Number(process.env.WORKERS);
const [host, port] = process.env.LISTEN.split(":");

class HttpError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// The formula of scripts/score.lua.
function formula(score, usersCount) {
  return 1 + score + score / usersCount;
}

// What a request may take. Once it commits, the outcome is awaited: a committed user must not be
// answered as a failure.
class Deadline {
  constructor() {
    this.at = performance.now() + DEADLINE_MS;
    this.expired = new Promise((_, reject) => {
      this.timer = setTimeout(() => {
        if (!this.committing) reject(new HttpError(504, "the deadline is over"));
      }, DEADLINE_MS);
    });
    this.expired.catch(() => {});
  }

  left() {
    const left = Math.floor(this.at - performance.now());
    if (left <= 0) throw new HttpError(504, "the deadline is over");
    return left;
  }

  commit() {
    this.left();
    this.committing = true;
  }

  async within(work) {
    work.catch(() => {});
    try {
      return await Promise.race([work, this.expired]);
    } finally {
      clearTimeout(this.timer);
    }
  }
}

const NAME = { type: "string", minLength: 1, maxLength: 100 };

const NEW_USER = {
  type: "object",
  required: ["username", "score", "profile"],
  properties: {
    username: NAME,
    score: { type: "number" },
    profile: {
      type: "object",
      required: ["firstname", "lastname"],
      properties: { firstname: NAME, lastname: NAME },
    },
  },
};

const ID = { type: "object", properties: { id: { type: "integer" } } };

const PAGE = {
  type: "object",
  properties: {
    limit: { type: "integer", minimum: 1, maximum: 10000, default: 1000 },
    after: { type: "integer", minimum: 0, default: 0 },
  },
};

// With the shape of an answer known, fastify writes it faster than JSON.stringify.
const USER = {
  type: "object",
  properties: {
    id: { type: "integer" },
    username: { type: "string" },
    score: { type: "number" },
    created: { type: "string" },
    updated: { type: "string", nullable: true },
    profile: {
      type: "object",
      properties: { firstname: { type: "string" }, lastname: { type: "string" } },
    },
  },
};

const ACTION = {
  type: "object",
  properties: {
    id: { type: "integer" },
    description: { type: "string" },
    created: { type: "string" },
  },
};

const PONG = { type: "object", properties: { pong: { type: "boolean" } } };

function connect() {
  return postgres(process.env.DATABASE_URL, {
    max: Math.max(1, Math.floor(Number(process.env.POOL_MAX) / workers)),
    max_pipeline: MAX_PIPELINE,
    onnotice: () => {},
  });
}

// Written out, for objects of one shape are what the engine is fast at.
function toUser(row) {
  return {
    id: row.id,
    username: row.username,
    score: row.score,
    created: row.created,
    updated: row.updated,
    profile: { firstname: row.firstname, lastname: row.lastname },
  };
}

function selectUsers(sql) {
  return sql`select u.id, u.username, u.score::float8, u.created, u.updated,
    p.firstname, p.lastname from users u join user_profile p on p.user_id = u.id`;
}

// The lock comes before any snapshot, so that every create sees those before it.
async function insertUser(tx, user, deadline) {
  const [, , [{ id }], users] = await Promise.all([
    tx`select set_config('statement_timeout', ${String(deadline.left())}, true)`,
    tx`lock table users in share row exclusive mode`,
    tx`insert into users (username, score) values (${user.username}, ${user.score}) returning id`,
    tx`select id, score::float8 from users order by id`,
  ]);
  return [id, users];
}

function updateScores(tx, users) {
  return users.map(({ id, score }) => {
    const value = formula(score, users.length);
    if (!Number.isFinite(value)) throw new HttpError(422, "a score is not finite");
    return tx`update users set score = ${value}, updated = current_timestamp where id = ${id}`;
  });
}

// Two batches: what must be known first, and all that follows from it.
async function createUser(tx, user, deadline) {
  const { username, profile } = user;
  const [id, users] = await insertUser(tx, user, deadline);
  deadline.left();
  const results = await Promise.all([
    tx`insert into user_profile (user_id, firstname, lastname)
      values (${id}, ${profile.firstname}, ${profile.lastname})`,
    ...updateScores(tx, users),
    tx`insert into actions (description)
      values (${`new user created with id ${id} and username ${username}`})`,
    tx`${selectUsers(tx)} where u.id = ${id}`,
  ]);
  deadline.commit();
  return toUser(results.at(-1)[0]);
}

function statusOf(error) {
  if (error.status) return error.status;
  if (error.validation) return 422;
  if (error.code === "23505") return 409;
  if (error.code === "57014") return 504;
  if (typeof error.code === "string" && error.code.startsWith("22")) return 422;
  return error.statusCode ?? 500;
}

function answerError(error, request, reply) {
  const status = statusOf(error);
  if (status === 500) console.error(error);
  reply.code(status).type("application/problem+json");
  reply.send(JSON.stringify({ type: "about:blank", status, detail: error.message }));
}

function serve() {
  const app = fastify({ logger: false });
  const sql = connect();
  app.setErrorHandler(answerError);

  app.get("/ping", { schema: { response: { 200: PONG } } }, async () => ({ pong: true }));

  app.post("/users", { schema: { body: NEW_USER, response: { 201: USER } } }, async (request, reply) => {
    const deadline = new Deadline();
    const work = sql.begin((tx) => createUser(tx, request.body, deadline));
    const user = await deadline.within(work);
    reply.code(201).header("Location", `/users/${user.id}`);
    return user;
  });

  app.get("/users/:id", { schema: { params: ID, response: { 200: USER } } }, async (request) => {
    const deadline = new Deadline();
    const [row] = await deadline.within(sql`${selectUsers(sql)} where u.id = ${request.params.id}::bigint`);
    if (!row) throw new HttpError(404, "there is no such user");
    return toUser(row);
  });

  app.get("/users", {
    schema: { querystring: PAGE, response: { 200: { type: "array", items: USER } } },
  }, async (request) => {
    const { after, limit } = request.query;
    const rows = await new Deadline().within(sql`${selectUsers(sql)}
      where u.id > ${after}::bigint order by u.id limit ${limit}::bigint`);
    return rows.map(toUser);
  });

  app.get("/actions", {
    schema: { querystring: PAGE, response: { 200: { type: "array", items: ACTION } } },
  }, async (request) => {
    const { after, limit } = request.query;
    return new Deadline().within(sql`select id, description, created from actions
      where id > ${after}::bigint order by id limit ${limit}::bigint`);
  });

  app.listen({ host, port: Number(port) });
}

if (cluster.isPrimary) {
  for (let i = 0; i < workers; i++) cluster.fork();
  process.on("SIGTERM", () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill("SIGTERM");
    process.exit(0);
  });
} else {
  serve();
}
