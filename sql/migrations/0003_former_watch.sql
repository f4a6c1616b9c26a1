-- Watches that ended: events that they wrote and nobody has read yet still need their name.
create table pipeline.former_watch (
    id int primary key,
    tag text not null
);
