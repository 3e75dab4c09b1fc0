"""Checks after creates: is every user whole, was every answer true, and are the scores those of one
create after the other?"""
from .cluster import first_score

NEW_SCORE = 100  # what the load gives a new user: see bench/load/create.c

COUNTS = """select (select count(*) from users), (select count(*) from user_profile),
(select count(*) from actions);"""
USERS = "select username, score from users order by id;"


def formula(score, users_count):
    """The formula of scripts/score.lua."""
    return 1 + score + score / users_count


def serial_scores(scores, created, new_score):
    """The scores that so many creates give, one after the other, to users with these scores before."""
    for _ in range(created):
        scores = scores + [float(new_score)]
        scores = [formula(score, len(scores)) for score in scores]
    return scores


def check(cluster, before, samples):
    """Gives what is wrong, as sentences: none, if the books balance. `before` is the number of users
    before the first sample."""
    users, profiles, actions = (int(value) for value in cluster.sql(COUNTS)[0])
    rows = cluster.sql(USERS)
    faults = []
    if not users == profiles == actions + before:
        faults.append(f"{users - before} users, {profiles - before} profiles and {actions} actions "
                      "were made")
    faults += check_answers({name for name, _ in rows}, samples)
    scores = [first_score(user_id) for user_id in range(1, before + 1)]
    if [float(score) for _, score in rows] != serial_scores(scores, users - before, NEW_SCORE):
        faults.append("the scores are not those of one create after the other")
    return faults


def check_answers(names, samples):
    """A sample without an answer may be there or not."""
    lost = sum(1 for sample in samples if sample.good and sample.username not in names)
    ghosts = sum(1 for sample in samples
                 if sample.status and not sample.good and sample.username in names)
    faults = []
    if lost:
        faults.append(f"{lost} users were acknowledged, but are not there")
    if ghosts:
        faults.append(f"{ghosts} users are there, but were answered as a failure")
    return faults
