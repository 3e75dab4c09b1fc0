-- Users and their profiles. Ids are compared as bigint, so that an id beyond the range of the column
-- finds nothing instead of failing.

-- name: create_user :one
-- Gives no row, and spends no id, if the username is in use. That holds only for those who lock the
-- table first; for the others the unique constraint decides.
insert into users (username, score)
select $1::varchar, $2::decimal
where not exists (select from users where username = $1::varchar)
returning id, created;

-- name: create_user_profile :exec
insert into user_profile (user_id, firstname, lastname)
values ($1, $2, $3);

-- name: get_user_scores :many
-- What the formula needs of everyone, in an order that is always the same.
select id, score
from users
order by id;

-- name: update_user_scores :bulk
-- Queued once per user, sent as one statement.
update users u
set score = v.score, updated = current_timestamp
from unnest($1::integer[], $2::decimal[]) v(id, score)
where u.id = v.id;

-- name: get_user :one
select u.id, u.username, u.score, u.created, u.updated,
       p.firstname as "profile.firstname", p.lastname as "profile.lastname"
from users u
left join user_profile p on p.user_id = u.id
where u.id = $1::bigint;

-- name: get_users_by_id :many
select u.id, u.username, u.score, u.created, u.updated,
       p.firstname as "profile.firstname", p.lastname as "profile.lastname"
from users u
left join user_profile p on p.user_id = u.id
where u.id = any ($1::integer[])
order by u.id;

-- name: get_users :many
-- One page: the users behind the id $1, at most $2.
select u.id, u.username, u.score, u.created, u.updated,
       p.firstname as "profile.firstname", p.lastname as "profile.lastname"
from users u
left join user_profile p on p.user_id = u.id
where u.id > $1::bigint
order by u.id
limit $2::bigint;
