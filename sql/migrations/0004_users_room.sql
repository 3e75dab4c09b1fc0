-- Every create gives all users a new score. With room for a second version of each row on its page no
-- index is written for that, and the next update takes the room of the versions before. Pages that are
-- full already are left as they are: `vacuum full users` gives them room, too.
alter table users set (fillfactor = 45);
