-- What has been done, as sentences.
create table actions (
  id serial primary key,
  description text not null,
  created timestamptz(0) not null default current_timestamp
);
