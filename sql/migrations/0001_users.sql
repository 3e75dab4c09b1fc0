create table users (
  id serial primary key,
  username varchar(100) not null unique,
  score decimal not null default 0,
  created timestamptz(0) not null default current_timestamp,
  updated timestamptz(0)
);
