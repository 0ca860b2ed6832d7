package main

import (
	"fmt"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/pocketbase/pocketbase/tools/types"

	"github.com/bedplate/bedplate/bench/internal/dataset"
)

const (
	// member: the caller is a member of the message's room.
	member = `@request.auth.id != "" && @collection.room_members.user ?= @request.auth.id && @collection.room_members.room ?= room`
	// signedIn: anybody with a valid token.
	signedIn = `@request.auth.id != ""`
	// owner: the caller wrote the post.
	owner = `author = @request.auth.id`
)

// seed creates the collections through PocketBase, so that their tables are
// its own, and the rows with plain inserts.
func seed(app core.App, targets string) error {
	if err := app.RunAllMigrations(); err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	if err := createCollections(app); err != nil {
		return err
	}
	t := &dataset.Targets{Members: dataset.Members()}
	err := app.RunInTransaction(func(tx core.App) error {
		s := seeder{db: tx.DB(), targets: t, now: types.NowDateTime().String()}
		return s.all()
	})
	if err != nil {
		return err
	}
	for i := range t.Users {
		user, err := app.FindRecordById("users", t.Users[i].ID)
		if err != nil {
			return fmt.Errorf("reading user %d back: %w", i, err)
		}
		if t.Users[i].Token, err = user.NewAuthToken(); err != nil {
			return fmt.Errorf("signing a token: %w", err)
		}
	}
	if _, err := app.DB().NewQuery("ANALYZE").Execute(); err != nil {
		return fmt.Errorf("analyzing: %w", err)
	}
	return t.WriteFile(targets)
}

// createCollections makes rooms, room_members, messages, messages_open and posts. The users
// collection comes with PocketBase.
func createCollections(app core.App) error {
	users, err := app.FindCollectionByNameOrId("users")
	if err != nil {
		return err
	}
	relation := func(name string, to *core.Collection) *core.RelationField {
		return &core.RelationField{Name: name, CollectionId: to.Id, Required: true, MaxSelect: 1}
	}
	created := &core.AutodateField{Name: "created", OnCreate: true}

	rooms := core.NewBaseCollection("rooms")
	rooms.Fields.Add(&core.TextField{Name: "name", Required: true, Max: 200}, created)
	if err := app.Save(rooms); err != nil {
		return fmt.Errorf("creating rooms: %w", err)
	}

	members := core.NewBaseCollection("room_members")
	members.Fields.Add(relation("user", users), relation("room", rooms), created)
	members.AddIndex("room_members_user_room", true, "user, room", "")
	if err := app.Save(members); err != nil {
		return fmt.Errorf("creating room_members: %w", err)
	}

	// A collection has one rule for all its subscribers: what everybody may
	// follow is a second one.
	for name, read := range map[string]string{"messages": member, "messages_open": ""} {
		messages := core.NewBaseCollection(name)
		messages.Fields.Add(relation("room", rooms), relation("author", users),
			&core.TextField{Name: "body", Required: true, Max: 10_000}, created)
		messages.CreateRule = types.Pointer(member)
		messages.ViewRule = types.Pointer(read)
		messages.ListRule = types.Pointer(read)
		if err := app.Save(messages); err != nil {
			return fmt.Errorf("creating %s: %w", name, err)
		}
	}

	posts := core.NewBaseCollection("posts")
	posts.Fields.Add(relation("author", users),
		&core.TextField{Name: "title", Required: true, Max: 200},
		&core.TextField{Name: "body", Required: true, Max: 10_000},
		&core.SelectField{Name: "status", Required: true, MaxSelect: 1, Values: []string{"draft", "published"}},
		&core.NumberField{Name: "score", OnlyInt: true}, created)
	posts.AddIndex("posts_status_score", false, "status, score", "")
	posts.ListRule = types.Pointer(signedIn)
	posts.ViewRule = types.Pointer(signedIn)
	posts.CreateRule = types.Pointer(signedIn)
	posts.UpdateRule = types.Pointer(owner)
	if err := app.Save(posts); err != nil {
		return fmt.Errorf("creating posts: %w", err)
	}
	return nil
}

// seeder inserts the rows.
type seeder struct {
	db      dbx.Builder
	targets *dataset.Targets
	now     string
}

func (s *seeder) all() error {
	for _, step := range []func() error{s.users, s.rooms, s.messages, s.posts} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *seeder) insert(table string, row dbx.Params) error {
	if _, err := s.db.Insert(table, row).Execute(); err != nil {
		return fmt.Errorf("inserting into %s: %w", table, err)
	}
	return nil
}

func (s *seeder) users() error {
	for i := range dataset.Users {
		id := core.GenerateDefaultRandomId()
		s.targets.Users = append(s.targets.Users, dataset.User{ID: id})
		err := s.insert("users", dbx.Params{
			"id": id, "email": fmt.Sprintf("user%d@example.com", i), "name": fmt.Sprintf("User %d", i),
			"verified": true, "emailVisibility": false, "avatar": "",
			"password": "!", "tokenKey": security.RandomString(50), // nobody signs in with a password
			"created": s.now, "updated": s.now,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *seeder) rooms() error {
	for i := range dataset.Rooms {
		id := core.GenerateDefaultRandomId()
		s.targets.Rooms = append(s.targets.Rooms, id)
		if err := s.insert("rooms", dbx.Params{"id": id, "name": fmt.Sprintf("Room %d", i), "created": s.now}); err != nil {
			return err
		}
	}
	s.targets.Hall = core.GenerateDefaultRandomId()
	if err := s.insert("rooms", dbx.Params{"id": s.targets.Hall, "name": "Hall", "created": s.now}); err != nil {
		return err
	}
	for u, rooms := range s.targets.Members {
		if dataset.InHall(u) {
			if err := s.member(u, s.targets.Hall); err != nil {
				return err
			}
		}
		for _, r := range rooms {
			if err := s.member(u, s.targets.Rooms[r]); err != nil {
				return err
			}
		}
	}
	return nil
}

// member puts a user into a room.
func (s *seeder) member(user int, room string) error {
	return s.insert("room_members", dbx.Params{
		"id": core.GenerateDefaultRandomId(), "created": s.now,
		"user": s.targets.Users[user].ID, "room": room,
	})
}

func (s *seeder) messages() error {
	for i, m := range dataset.AllMessages() {
		id := core.GenerateDefaultRandomId()
		if dataset.Sample(i) {
			s.targets.Messages = append(s.targets.Messages, dataset.Ref{ID: id, User: m.Author})
		}
		err := s.insert("messages", dbx.Params{
			"id": id, "room": s.targets.Rooms[m.Room], "author": s.targets.Users[m.Author].ID,
			"body": m.Body, "created": s.now,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *seeder) posts() error {
	for i, p := range dataset.AllPosts() {
		id := core.GenerateDefaultRandomId()
		if dataset.Sample(i) {
			s.targets.Posts = append(s.targets.Posts, dataset.Ref{ID: id, User: p.Author})
		}
		err := s.insert("posts", dbx.Params{
			"id": id, "author": s.targets.Users[p.Author].ID, "title": p.Title, "body": p.Body,
			"status": p.Status, "score": p.Score, "created": s.now,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
