CREATE TABLE users (
  id    BLOB PRIMARY KEY NOT NULL CHECK(is_uuid_v7(id)) DEFAULT (uuid_v7()),
  email TEXT NOT NULL UNIQUE,
  name  TEXT NOT NULL
) STRICT;

-- Tokens the stub for sign-in accepts.
CREATE TABLE sessions (
  token_hash BLOB PRIMARY KEY NOT NULL,
  user       BLOB NOT NULL REFERENCES users(id)
) STRICT;

CREATE TABLE rooms (
  id      BLOB PRIMARY KEY NOT NULL CHECK(is_uuid_v7(id)) DEFAULT (uuid_v7()),
  name    TEXT NOT NULL,
  created INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

CREATE TABLE room_members (
  id      BLOB PRIMARY KEY NOT NULL CHECK(is_uuid_v7(id)) DEFAULT (uuid_v7()),
  user    BLOB NOT NULL REFERENCES users(id),
  room    BLOB NOT NULL REFERENCES rooms(id),
  created INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
CREATE UNIQUE INDEX room_members_user_room ON room_members(user, room);

CREATE TABLE messages (
  id      BLOB PRIMARY KEY NOT NULL CHECK(is_uuid_v7(id)) DEFAULT (uuid_v7()),
  room    BLOB NOT NULL REFERENCES rooms(id),
  author  BLOB NOT NULL REFERENCES users(id),
  body    TEXT NOT NULL CHECK(length(body) BETWEEN 1 AND 10000),
  created INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

CREATE TABLE posts (
  id      BLOB PRIMARY KEY NOT NULL CHECK(is_uuid_v7(id)) DEFAULT (uuid_v7()),
  author  BLOB NOT NULL REFERENCES users(id),
  title   TEXT NOT NULL CHECK(length(title) BETWEEN 1 AND 200),
  body    TEXT NOT NULL CHECK(length(body) BETWEEN 1 AND 10000),
  status  TEXT NOT NULL CHECK(status IN ('draft', 'published')),
  score   INTEGER NOT NULL DEFAULT 0,
  created INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
CREATE INDEX posts_status_score ON posts(status, score);
