// The API of the sample application in Go, with pgx and Echo, as its peer in the benchmark. Settings
// come from the environment: DATABASE_URL, LISTEN, POOL_MAX, UPDATE=row|unnest; GOMAXPROCS says how
// many processors it may use.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
	"github.com/labstack/echo"
)

const (
	deadline     = 2 * time.Second
	defaultLimit = 1000
	maxLimit     = 10000
)

type profile struct {
	Firstname string `json:"firstname"`
	Lastname  string `json:"lastname"`
}

type user struct {
	ID       int64      `json:"id"`
	Username string     `json:"username"`
	Score    float64    `json:"score"`
	Created  time.Time  `json:"created"`
	Updated  *time.Time `json:"updated"`
	Profile  profile    `json:"profile"`
}

type newUser struct {
	Username *string  `json:"username"`
	Score    *float64 `json:"score"`
	Profile  *struct {
		Firstname *string `json:"firstname"`
		Lastname  *string `json:"lastname"`
	} `json:"profile"`
}

type action struct {
	ID          int64     `json:"id"`
	Description string    `json:"description"`
	Created     time.Time `json:"created"`
}

type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

type server struct {
	pool   *pgxpool.Pool
	unnest bool
}

func main() {
	pool, err := connect()
	if err != nil {
		log.Fatal(err)
	}
	s := &server{pool: pool, unnest: os.Getenv("UPDATE") == "unnest"}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = answerError
	e.POST("/users", s.createUser)
	e.GET("/users", s.getUsers)
	e.GET("/users/:id", s.getUser)
	e.GET("/actions", s.getActions)
	e.GET("/ping", ping)
	log.Fatal(e.Start(os.Getenv("LISTEN")))
}

func connect() (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return nil, err
	}
	max, err := strconv.Atoi(os.Getenv("POOL_MAX"))
	if err != nil {
		return nil, fmt.Errorf("POOL_MAX: %w", err)
	}
	config.MaxConns = int32(max)
	config.AfterConnect = prepare
	return pgxpool.ConnectConfig(context.Background(), config)
}

const selectUsers = `select u.id, u.username, u.score::float8, u.created, u.updated,
	p.firstname, p.lastname from users u join user_profile p on p.user_id = u.id`

// By name, for two reasons. Preparing "insert" inside a transaction takes a lock on the table, and two
// that then ask for the stronger lock wait for each other for ever. And pgx 4.15 panics if a deadline
// expires while it prepares the statements of a batch by itself.
var statements = map[string]string{
	"lock_users":  "lock table users in share row exclusive mode",
	"create_user": "insert into users (username, score) values ($1, $2) returning id",
	"get_scores":  "select id, score::float8 from users order by id",
	"create_profile": `insert into user_profile (user_id, firstname, lastname)
		values ($1, $2, $3)`,
	"update_score": "update users set score = $2, updated = current_timestamp where id = $1",
	"update_scores": `update users u set score = v.score, updated = current_timestamp
		from unnest($1::int[], $2::numeric[]) v(id, score) where u.id = v.id`,
	"log_action": "insert into actions (description) values ($1)",
	"get_user":   selectUsers + " where u.id = $1::bigint",
	"get_users":  selectUsers + " where u.id > $1::bigint order by u.id limit $2::bigint",
	"get_actions": `select id, description, created from actions
		where id > $1::bigint order by id limit $2::bigint`,
}

func prepare(ctx context.Context, conn *pgx.Conn) error {
	for name, sql := range statements {
		if _, err := conn.Prepare(ctx, name, sql); err != nil {
			return err
		}
	}
	return nil
}

func ping(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]bool{"pong": true})
}

// The formula of scripts/score.lua.
func formula(score float64, usersCount int) float64 {
	return 1 + score + score/float64(usersCount)
}

func withDeadline(c echo.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Request().Context(), deadline)
}

func answerError(err error, c echo.Context) {
	status, detail := statusOf(err)
	body := problem{"about:blank", http.StatusText(status), status, detail}
	c.Response().Header().Set(echo.HeaderContentType, "application/problem+json")
	if status == http.StatusServiceUnavailable {
		c.Response().Header().Set("Retry-After", "1")
	}
	if err := c.JSON(status, body); err != nil {
		log.Print(err)
	}
}

func statusOf(err error) (int, string) {
	var httpError *echo.HTTPError
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &httpError):
		return httpError.Code, fmt.Sprint(httpError.Message)
	case errors.Is(err, pgx.ErrNoRows):
		return http.StatusNotFound, "there is no such row"
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return http.StatusGatewayTimeout, "the deadline is over"
	case errors.As(err, &pg) && pg.Code == "23505":
		return http.StatusConflict, "the username is in use"
	case errors.As(err, &pg) && pg.Code[:2] == "22":
		return http.StatusUnprocessableEntity, pg.Message
	}
	log.Print(err)
	return http.StatusInternalServerError, ""
}

func name(value *string) bool {
	return value != nil && len(*value) > 0 && len([]rune(*value)) <= 100
}

func readUser(c echo.Context) (*newUser, error) {
	input := new(newUser)
	if err := c.Bind(input); err != nil {
		return nil, err
	}
	if !name(input.Username) || input.Score == nil || input.Profile == nil ||
		!name(input.Profile.Firstname) || !name(input.Profile.Lastname) {
		return nil, echo.NewHTTPError(http.StatusUnprocessableEntity, "the user is not complete")
	}
	return input, nil
}

func (s *server) createUser(c echo.Context) error {
	input, err := readUser(c)
	if err != nil {
		return err
	}
	ctx, cancel := withDeadline(c)
	defer cancel()
	created, err := s.create(ctx, input)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, fmt.Sprintf("/users/%d", created.ID))
	return c.JSON(http.StatusCreated, created)
}

// Two batches: what must be known first, and all that follows from it. COMMIT is not given up once it
// is sent, or a committed user would be answered as a failure.
func (s *server) create(ctx context.Context, input *newUser) (*user, error) {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return nil, expired(ctx, err)
	}
	defer tx.Rollback(context.Background())
	id, ids, scores, err := insert(ctx, tx, input)
	if err != nil {
		return nil, err
	}
	created, err := s.update(ctx, tx, id, input, ids, scores)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return created, tx.Commit(context.Background())
}

// A deadline that expires while a connection is made shows itself as many kinds of errors.
func expired(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// The lock comes before any snapshot, so that every create sees those before it.
func insert(ctx context.Context, tx pgx.Tx, input *newUser) (int64, []int64, []float64, error) {
	batch := &pgx.Batch{}
	batch.Queue("lock_users")
	batch.Queue("create_user", input.Username, input.Score)
	batch.Queue("get_scores")
	results := tx.SendBatch(ctx, batch)
	defer results.Close()
	if _, err := results.Exec(); err != nil {
		return 0, nil, nil, err
	}
	var id int64
	if err := results.QueryRow().Scan(&id); err != nil {
		return 0, nil, nil, err
	}
	ids, scores, err := readScores(results)
	return id, ids, scores, err
}

func readScores(results pgx.BatchResults) ([]int64, []float64, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	var ids []int64
	var scores []float64
	for rows.Next() {
		var id int64
		var score float64
		if err := rows.Scan(&id, &score); err != nil {
			return nil, nil, err
		}
		ids = append(ids, id)
		scores = append(scores, score)
	}
	return ids, scores, rows.Err()
}

func newScores(scores []float64) error {
	for i, score := range scores {
		scores[i] = formula(score, len(scores))
		if math.IsInf(scores[i], 0) || math.IsNaN(scores[i]) {
			return echo.NewHTTPError(http.StatusUnprocessableEntity, "a score is not finite")
		}
	}
	return nil
}

func (s *server) update(ctx context.Context, tx pgx.Tx, id int64, input *newUser, ids []int64,
	scores []float64) (*user, error) {
	if err := newScores(scores); err != nil {
		return nil, err
	}
	batch := &pgx.Batch{}
	batch.Queue("create_profile", id, input.Profile.Firstname, input.Profile.Lastname)
	s.queueScores(batch, ids, scores)
	batch.Queue("log_action",
		fmt.Sprintf("new user created with id %d and username %s", id, *input.Username))
	batch.Queue("get_user", id)
	results := tx.SendBatch(ctx, batch)
	defer results.Close()
	for i := 0; i < batch.Len()-1; i++ {
		if _, err := results.Exec(); err != nil {
			return nil, err
		}
	}
	return scanUser(results.QueryRow())
}

func (s *server) queueScores(batch *pgx.Batch, ids []int64, scores []float64) {
	if s.unnest {
		batch.Queue("update_scores", ids, scores)
		return
	}
	for i := range ids {
		batch.Queue("update_score", ids[i], scores[i])
	}
}

func scanUser(row pgx.Row) (*user, error) {
	u := new(user)
	err := row.Scan(&u.ID, &u.Username, &u.Score, &u.Created, &u.Updated, &u.Profile.Firstname,
		&u.Profile.Lastname)
	return u, err
}

func (s *server) getUser(c echo.Context) error {
	id, err := strconv.ParseInt(c.Param("id"), 10, 64)
	if err != nil {
		return echo.NewHTTPError(http.StatusUnprocessableEntity, "the id is no integer")
	}
	ctx, cancel := withDeadline(c)
	defer cancel()
	found, err := scanUser(s.pool.QueryRow(ctx, "get_user", id))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, found)
}

func page(c echo.Context) (after, limit int64, err error) {
	limit = defaultLimit
	err = echo.QueryParamsBinder(c).Int64("after", &after).Int64("limit", &limit).BindError()
	if err == nil && (limit < 1 || limit > maxLimit || after < 0) {
		err = echo.NewHTTPError(http.StatusUnprocessableEntity, "limit or after is out of range")
	}
	return after, limit, err
}

func (s *server) getUsers(c echo.Context) error {
	after, limit, err := page(c)
	if err != nil {
		return err
	}
	ctx, cancel := withDeadline(c)
	defer cancel()
	rows, err := s.pool.Query(ctx, "get_users", after, limit)
	if err != nil {
		return err
	}
	defer rows.Close()
	users := make([]*user, 0, limit)
	for rows.Next() {
		u, err := scanUser(rows)
		if err != nil {
			return err
		}
		users = append(users, u)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, users)
}

func (s *server) getActions(c echo.Context) error {
	after, limit, err := page(c)
	if err != nil {
		return err
	}
	ctx, cancel := withDeadline(c)
	defer cancel()
	rows, err := s.pool.Query(ctx, "get_actions", after, limit)
	if err != nil {
		return err
	}
	defer rows.Close()
	actions := []action{}
	for rows.Next() {
		var a action
		if err := rows.Scan(&a.ID, &a.Description, &a.Created); err != nil {
			return err
		}
		actions = append(actions, a)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, actions)
}
