// Package dataset is the data every server of the benchmark holds: users who
// are members of rooms, messages in those rooms, and posts.
//
// It is generated, not stored. The same call always gives the same rows, so
// each engine seeds its own file with its own kind of id and still holds
// exactly what the others hold. What differs, the ids and the tokens, is
// written by the seeding program as [Targets] for the load generator.
package dataset

import (
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"strings"
)

// The size of the data.
const (
	Users        = 1_000
	Rooms        = 100
	RoomsPerUser = 10
	Messages     = 100_000
	Posts        = 100_000
)

// Message is one row of the table messages.
type Message struct {
	Room   int // index of a room the author is a member of
	Author int // index of a user
	Body   string
}

// Post is one row of the table posts.
type Post struct {
	Author int // index of a user
	Title  string
	Body   string
	Status string // "published" for two of three, else "draft"
	Score  int    // 0 to 999
}

// Members returns, for each user, the indexes of the rooms that user is in.
func Members() [][]int {
	rng := rand.New(rand.NewPCG(1, 1))
	members := make([][]int, Users)
	for u := range members {
		members[u] = rng.Perm(Rooms)[:RoomsPerUser]
	}
	return members
}

// InHall tells whether the user with this index is a member of the hall, one
// more room, which is not among those of [Members]: all but every tenth are.
// Messages there reach nearly everybody, but not everybody may see them.
func InHall(user int) bool { return user%10 != 9 }

// AllMessages yields every message with its index, in order.
func AllMessages() iter.Seq2[int, Message] {
	return func(yield func(int, Message) bool) {
		rng := rand.New(rand.NewPCG(2, 2))
		members := Members()
		for i := range Messages {
			author := rng.IntN(Users)
			m := Message{
				Room:   members[author][rng.IntN(RoomsPerUser)],
				Author: author,
				Body:   words(rng, 100),
			}
			if !yield(i, m) {
				return
			}
		}
	}
}

// AllPosts yields every post with its index, in order.
func AllPosts() iter.Seq2[int, Post] {
	return func(yield func(int, Post) bool) {
		rng := rand.New(rand.NewPCG(3, 3))
		for i := range Posts {
			p := Post{
				Author: rng.IntN(Users),
				Title:  words(rng, 40),
				Body:   words(rng, 140),
				Status: "published",
				Score:  rng.IntN(1000),
			}
			if rng.IntN(3) == 0 {
				p.Status = "draft"
			}
			if !yield(i, p) {
				return
			}
		}
	}
}

// vocabulary is what words draws from.
var vocabulary = strings.Fields(`harbor lantern meadow river copper signal
	garden winter morning letter window engine paper summit cedar planet
	ribbon anchor bridge candle`)

// words returns text of about n bytes.
func words(rng *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(vocabulary[rng.IntN(len(vocabulary))])
	}
	return b.String()
}

// Targets are the addresses of one seeded engine: what a client must know to
// send requests that succeed.
type Targets struct {
	Users    []User   `json:"users"`
	Rooms    []string `json:"rooms"`
	Members  [][]int  `json:"members"`
	Hall     string   `json:"hall"`
	Messages []Ref    `json:"messages"`
	Posts    []Ref    `json:"posts"`
}

// User is a user's id and the bearer token that signs in as that user.
type User struct {
	ID    string `json:"id"`
	Token string `json:"token"`
}

// Ref is a record and the index of the user who may read or change it.
type Ref struct {
	ID   string `json:"id"`
	User int    `json:"user"`
}

// Sample tells whether the record with this index belongs into [Targets]:
// every fifth, so that the file stays small and the requests spread.
func Sample(i int) bool { return i%5 == 0 }

// WriteFile stores the targets at path.
func (t *Targets) WriteFile(path string) error {
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encoding targets: %w", err)
	}
	return os.WriteFile(path, data, 0o600)
}

// ReadFile loads what [Targets.WriteFile] stored.
func ReadFile(path string) (*Targets, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := new(Targets)
	if err := json.Unmarshal(data, t); err != nil {
		return nil, fmt.Errorf("decoding targets %s: %w", path, err)
	}
	if len(t.Users) == 0 || len(t.Rooms) == 0 || t.Hall == "" || len(t.Members) != len(t.Users) ||
		len(t.Messages) == 0 || len(t.Posts) == 0 {
		return nil, fmt.Errorf("targets %s are incomplete", path)
	}
	return t, nil
}
