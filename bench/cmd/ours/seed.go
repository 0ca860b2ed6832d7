package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/bench/internal/dataset"
	"github.com/bedplate/bedplate/sqlite"
)

//go:embed schema.sql
var schema string

// seed creates the tables and their rows in a new data directory, and writes
// the targets for the load generator.
func seed(ctx context.Context, cfg bedplate.Config, targets string) error {
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return err
	}
	db, err := sqlite.Open(ctx, cfg.Path, cfg.SQLite)
	if err != nil {
		return err
	}
	defer db.Close()

	s := seeder{db: db, targets: &dataset.Targets{Members: dataset.Members()}, clock: time.Now().Add(-24 * time.Hour)}
	for _, step := range []func(context.Context) error{
		s.tables, s.people, s.messages, s.posts, s.analyze,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("seeding: %w", err)
		}
	}
	return s.targets.WriteFile(targets)
}

type seeder struct {
	db      *sqlite.DB
	targets *dataset.Targets
	users   [][]byte
	rooms   [][]byte
	clock   time.Time
	batch   []row
}

// row is one insert that waits for its transaction.
type row struct {
	insert string
	args   []any
}

// batchSize is how many rows one transaction inserts.
const batchSize = 2000

// add queues a row and inserts the batch when it is full.
func (s *seeder) add(ctx context.Context, insert string, args ...any) error {
	if s.batch = append(s.batch, row{insert, args}); len(s.batch) < batchSize {
		return nil
	}
	return s.flush(ctx)
}

func (s *seeder) flush(ctx context.Context) error {
	batch := s.batch
	s.batch = nil
	return s.db.Update(ctx, func(tx *sqlite.Tx) error {
		for _, r := range batch {
			if _, err := tx.ExecContext(ctx, r.insert, r.args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// id returns a version 7 UUID; each is greater than the one before.
func (s *seeder) id() []byte {
	s.clock = s.clock.Add(time.Millisecond)
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(s.clock.UnixMilli()))
	copy(id, ms[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// wire is how an id looks in URLs and JSON.
func wire(id []byte) string { return base64.URLEncoding.EncodeToString(id) }

func (s *seeder) tables(ctx context.Context) error {
	return s.db.Update(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(ctx, schema)
		return err
	})
}

// tokenBytes makes a token as long as a signed one would be.
const tokenBytes = 180

// people inserts users with their tokens, rooms, and who is in which.
func (s *seeder) people(ctx context.Context) error {
	for i := range dataset.Users {
		raw := make([]byte, tokenBytes)
		_, _ = rand.Read(raw)
		id, token := s.id(), base64.RawURLEncoding.EncodeToString(raw)
		s.users = append(s.users, id)
		s.targets.Users = append(s.targets.Users, dataset.User{ID: wire(id), Token: token})
		hash := sha256.Sum256([]byte(token))
		if err := s.add(ctx, `INSERT INTO users (id, email, name) VALUES (?, ?, ?)`,
			id, fmt.Sprintf("user%d@example.com", i), fmt.Sprintf("User %d", i)); err != nil {
			return err
		}
		if err := s.add(ctx, `INSERT INTO sessions (token_hash, user) VALUES (?, ?)`, hash[:], id); err != nil {
			return err
		}
	}
	for i := range dataset.Rooms {
		id := s.id()
		s.rooms = append(s.rooms, id)
		s.targets.Rooms = append(s.targets.Rooms, wire(id))
		if err := s.add(ctx, `INSERT INTO rooms (id, name) VALUES (?, ?)`, id, fmt.Sprintf("Room %d", i)); err != nil {
			return err
		}
	}
	hall := s.id()
	s.targets.Hall = wire(hall)
	if err := s.add(ctx, `INSERT INTO rooms (id, name) VALUES (?, 'Hall')`, hall); err != nil {
		return err
	}
	for u, rooms := range s.targets.Members {
		if dataset.InHall(u) {
			if err := s.add(ctx, `INSERT INTO room_members (id, user, room) VALUES (?, ?, ?)`,
				s.id(), s.users[u], hall); err != nil {
				return err
			}
		}
		for _, r := range rooms {
			if err := s.add(ctx, `INSERT INTO room_members (id, user, room) VALUES (?, ?, ?)`,
				s.id(), s.users[u], s.rooms[r]); err != nil {
				return err
			}
		}
	}
	return s.flush(ctx)
}

func (s *seeder) messages(ctx context.Context) error {
	for i, m := range dataset.AllMessages() {
		id := s.id()
		if dataset.Sample(i) {
			s.targets.Messages = append(s.targets.Messages, dataset.Ref{ID: wire(id), User: m.Author})
		}
		if err := s.add(ctx, `INSERT INTO messages (id, room, author, body) VALUES (?, ?, ?, ?)`,
			id, s.rooms[m.Room], s.users[m.Author], m.Body); err != nil {
			return err
		}
	}
	return s.flush(ctx)
}

func (s *seeder) posts(ctx context.Context) error {
	for i, p := range dataset.AllPosts() {
		id := s.id()
		if dataset.Sample(i) {
			s.targets.Posts = append(s.targets.Posts, dataset.Ref{ID: wire(id), User: p.Author})
		}
		if err := s.add(ctx, `INSERT INTO posts (id, author, title, body, status, score) VALUES (?, ?, ?, ?, ?, ?)`,
			id, s.users[p.Author], p.Title, p.Body, p.Status, p.Score); err != nil {
			return err
		}
	}
	return s.flush(ctx)
}

// analyze gives the planner its statistics.
func (s *seeder) analyze(ctx context.Context) error {
	return s.db.Update(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(ctx, `ANALYZE`)
		return err
	})
}
