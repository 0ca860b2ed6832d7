CREATE TABLE posts (
    id     INTEGER PRIMARY KEY,
    author TEXT NOT NULL,
    text   TEXT NOT NULL CHECK (length(text) BETWEEN 1 AND 500)
) STRICT;

INSERT INTO posts (author, text) VALUES ('ada', 'Hello, world.');
