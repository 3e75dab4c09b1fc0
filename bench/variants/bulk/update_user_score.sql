-- name: update_user_score :bulk
update users u
set score = v.score, updated = current_timestamp
from unnest($1::integer[], $2::decimal[]) v(id, score)
where u.id = v.id;
