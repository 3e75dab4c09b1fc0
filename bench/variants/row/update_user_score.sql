-- name: update_user_score :exec
update users
set score = $2, updated = current_timestamp
where id = $1;
