package replicator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/benbjohnson/litestream"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// A lineage is what a directory remembers of the leases that were held with it. The generation of
// a lease goes up whenever it is acquired, so one that is not remembered was held by somebody else,
// who may have written to the replica what this database does not have.
type lineage struct {
	Replica    string `json:"replica"`        // digest of its URL
	Generation int64  `json:"generation"`     // of the last lease that was acquired
	Next       int64  `json:"next,omitempty"` // of one that was about to be
}

// lineageFile is in Order.Dir.
const lineageFile = "lease.json"

// knows reports whether a lease was held with the directory. That it was about to be says so only
// while it has the owner's name: somebody else may have been first with the same generation.
func (l lineage) knows(lease *litestream.Lease, owner string) bool {
	return lease.Generation == l.Generation || l.Next != 0 && lease.Generation == l.Next && lease.Owner == owner
}

// remembered returns false if nothing is remembered of the replica.
func (h *holder) remembered() (l lineage, ok bool, err error) {
	text, err := os.ReadFile(filepath.Join(h.c.order.Dir, lineageFile))
	if errors.Is(err, fs.ErrNotExist) || h.c.order.Dir == "" {
		return l, false, nil
	}
	if err != nil {
		return l, false, err
	}
	if err := json.Unmarshal(text, &l); err != nil || l.Replica != replicaDigest(h.c.order.URL) {
		return lineage{}, false, nil //nolint:nilerr // it was cut short, which says nothing
	}
	return l, true, nil
}

// displaced returns an error if somebody else has held the lease since the database was replicated
// last. It is none if the database was restored since, for that has what is in the replica: there
// are no files of Litestream then.
func (h *holder) displaced(s *sight) error {
	l, ok, err := h.remembered()
	if err != nil || !ok || !s.whole || l.knows(s.lease, h.c.order.Owner) || h.c.order.Adopt {
		return err
	}
	if h.c.order.Mode == wire.Lease {
		return nil // for a restore
	}
	if _, err := os.Stat(stateDir(h.c.order)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	err = &codeError{wire.CodeOtherOwner, fmt.Errorf("another machine has had the lease of the replica since; restore the database, or set Config.Adopt to replicate this one all the same")}
	h.c.send(wire.Event{Kind: wire.Refused, Code: wire.CodeOtherOwner, Error: err.Error()})
	return err
}

// next is the generation for a lease after one of another generation, 0 if there is none or that is
// not known: one that nobody has had, also when what told about those was deleted from the replica.
func (h *holder) next(ctx context.Context, after int64) (int64, error) {
	l, _, err := h.remembered()
	if err != nil {
		return 0, err
	}
	next := max(after, l.Generation, l.Next) + 1
	if h.held != nil { // and nobody has had a later one
		return max(next, h.held.Generation+1), nil
	}
	if after > 1 {
		return next, nil
	}
	// The first one was perhaps made where there had been others, and its maker came no further.
	what, err := h.c.holds(ctx)
	if err != nil {
		return 0, err
	}
	if what != "" {
		next = max(next, time.Now().UnixMilli())
	}
	return next, nil
}

// remember notes that a lease was acquired, or with intended that it may be. What a lease for a
// restore has found of others is not forgotten by it: the restore may fail.
func (h *holder) remember(before *sight, generation int64, intended bool) error {
	if h.c.order.Dir == "" {
		return nil
	}
	l, ok, err := h.remembered()
	if err != nil {
		return err
	}
	if h.c.order.Mode == wire.Lease && ok && before != nil && before.whole && !l.knows(before.lease, h.c.order.Owner) {
		return nil
	}
	l.Replica = replicaDigest(h.c.order.URL)
	if intended {
		l.Next = generation
	} else {
		l.Generation, l.Next = generation, 0
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(h.c.order.Dir, 0o700); err != nil {
		return err
	}
	return replaceFile(filepath.Join(h.c.order.Dir, lineageFile), text)
}

// databaseFile is in Order.Dir, and has the path of the database whose state is there.
const databaseFile = "database"

// noteDatabase writes it. The directory is locked.
func noteDatabase(o wire.Order) error {
	name := filepath.Join(o.Dir, databaseFile)
	if text, err := os.ReadFile(name); err == nil && string(text) == o.Database {
		return nil
	}
	return replaceFile(name, []byte(o.Database))
}

// replicaDigest stands for a replica, whatever the credentials, and however its URL is written: what
// is not taken for the same replica is forgotten.
func replicaDigest(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	host := strings.ToLower(u.Host)
	if account := u.User.Username(); account != "" { // of abs, whose containers have names of their own in each
		host = account + "@" + host
	}
	endpoint := strings.TrimRight(strings.ToLower(u.Query().Get("endpoint")), "/")
	sum := sha256.Sum256([]byte(strings.Join([]string{u.Scheme, host, path.Clean("/" + u.Path), endpoint}, "\n")))
	return hex.EncodeToString(sum[:16])
}

// replaceFile writes a file, so that there is either the old content or the new one at any time.
func replaceFile(name string, content []byte) error {
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(name)
}
