"""The books of a chaos run: is what is stored what the clients were told?"""
import re

from harness.books import serial_scores
from loads import NEW_SCORE
from stage import POOL_MAX, ROLE

RESET = "truncate users, user_profile, actions;"
USERS = """
select u.username, u.score,
  (select count(*) from user_profile p where p.user_id = u.id),
  (select count(*) from actions a
   where a.description = format('new user created with id %s and username %s', u.id, u.username))
from users u order by u.id;
"""
COUNTS = """
select (select count(*) from users), (select count(*) from user_profile),
  (select count(*) from actions);
"""
SESSIONS = f"select count(*) from pg_stat_activity where usename = '{ROLE}';"

ACTIVITY = f"""
select pid, client_port, backend_start::time, coalesce(xact_start::time::text, '-'), state,
  coalesce(wait_event, '-'), left(replace(query, E'\\n', ' '), 60)
from pg_stat_activity where usename = '{ROLE}';
"""


def check_users(database, verdicts, told):
    """Gives what is wrong, as sentences."""
    rows = database.rows(USERS)
    stored = {name for name, *_ in rows}
    faults = []
    for name, _, profiles, actions in rows:
        if (profiles, actions) != ("1", "1"):
            faults.append(f"'{name}' is half there: {profiles} profiles, {actions} actions")
        if verdicts.get(name, "absent") == "absent":
            faults.append(f"'{name}' is there, but its client was told {told.get(name)}")
    for name, verdict in verdicts.items():
        if verdict == "there" and name not in stored:
            faults.append(f"'{name}' was acknowledged, but is not there")
    if [float(score) for _, score, *_ in rows] != serial_scores([], len(rows), NEW_SCORE):
        faults.append("the scores are not those of one create after the other")
    if len(set(database.rows(COUNTS)[0])) != 1:
        faults.append(f"users, profiles and actions: {database.rows(COUNTS)[0]}")
    return faults, len(rows)


def sessions(database):
    return int(database.rows(SESSIONS)[0][0])


def activity(database):
    """What PostgreSQL does, as text."""
    return "; ".join(" ".join(row) for row in database.rows(ACTIVITY))


def pool_is_in_order(stage):
    """Nothing waits, and the server knows of all its sessions."""
    figures = stage.server.metrics()
    return (figures.get("requests_in_flight") == 0 and figures.get("pool_waiting") == 0 and
            figures.get("pool_sessions") == sessions(stage.database) <= POOL_MAX)


def check_workers(server):
    """Workers that died or hung without our doing."""
    faults = []
    for line in server.read(server.log).splitlines():
        if "worker died" in line and int(re.search(r" pid=(\d+)", line)[1]) not in server.killed:
            faults.append(line)
        elif "worker hangs" in line or "ERROR: " in line or "runtime error:" in line:
            faults.append(line)
    return faults
