/* A doubly linked ring. The head is a `struct list` too; an element embeds one as a member.
 * An element that is on no list points to itself, so that list_remove() may be called twice. */
#ifndef MOONPOOL_LIST_H
#define MOONPOOL_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev;
    struct list *next;
};

/* The struct of type `type` whose member `member` is the list element `item`. */
#define list_entry(item, type, member) ((type *)((char *)(item)-offsetof(type, member)))

/* Walks the elements from first to last; the current one may be removed on the way. */
#define list_for_each(cursor, following, head)                                                     \
    for ((cursor) = (head)->next, (following) = (cursor)->next; (cursor) != (head);                \
         (cursor) = (following), (following) = (cursor)->next)

static inline void list_init(struct list *list)
{
    list->prev = list;
    list->next = list;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->next == list;
}

/* Inserts `item` in front of `before`; with the head as `before` that is the list's end. */
static inline void list_insert(struct list *before, struct list *item)
{
    item->prev = before->prev;
    item->next = before;
    before->prev->next = item;
    before->prev = item;
}

/* Moves all elements of `from` to the end of `head`, keeping their order. */
static inline void list_take(struct list *head, struct list *from)
{
    if (list_is_empty(from)) {
        return;
    }
    from->next->prev = head->prev;
    head->prev->next = from->next;
    from->prev->next = head;
    head->prev = from->prev;
    list_init(from);
}

static inline void list_append(struct list *head, struct list *item)
{
    list_insert(head, item);
}

static inline void list_prepend(struct list *head, struct list *item)
{
    list_insert(head->next, item);
}

static inline void list_remove(struct list *item)
{
    item->prev->next = item->next;
    item->next->prev = item->prev;
    list_init(item);
}

#endif
