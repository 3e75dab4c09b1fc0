-- name: create_user :one
insert into users (username, score)
select $1::varchar, $2::decimal
where not exists (select from users where username = $1::varchar)
returning id, username, score, created, created as updated;

-- name: create_user_profile :exec
insert into user_profile (user_id, firstname, lastname)
values ($1, $2, $3);

-- name: get_user_scores :many
select id, score
from users
order by id;

-- name: get_user :one
select id, username, score
from users
where id = $1;

-- name: log_action :exec
insert into actions (description)
values ($1);
