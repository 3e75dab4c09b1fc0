create table user_profile (
  user_id integer not null unique references users (id),
  firstname varchar(100) not null,
  lastname varchar(100) not null
);
