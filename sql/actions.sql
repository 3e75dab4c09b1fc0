-- The record of what was done.

-- name: log_action :exec
insert into actions (description)
values ($1);

-- name: get_actions :many
-- One page: the actions behind the id $1, at most $2.
select id, description, created
from actions
where id > $1::bigint
order by id
limit $2::bigint;
