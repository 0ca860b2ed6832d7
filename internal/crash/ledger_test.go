package crash_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A ledger remembers what each writer sent and which of it was acknowledged. Each writer has a
// page of its own, so writers need no lock; compare must not run while they do.
type ledger struct {
	pages [writers][]string // ids by sequence number; "" is sent and not acknowledged
}

// entry is one record to be created.
type entry struct{ writer, seq int }

// body is what the record must hold, long enough to reach over pages now and then.
func (e entry) body() string {
	return strings.Repeat(fmt.Sprintf("%d/%d ", e.writer, e.seq), 40)
}

func (l *ledger) next(writer int) entry {
	l.pages[writer] = append(l.pages[writer], "")
	return entry{writer, len(l.pages[writer]) - 1}
}

func (l *ledger) acknowledge(e entry, id string) { l.pages[e.writer][e.seq] = id }

// row is one record found in the database.
type row struct {
	id          []byte
	writer, seq int
	body        string
}

type report struct{ sent, acknowledged, unacknowledged int }

// compare wants every acknowledged entry among rows, once and unchanged. An entry that was sent
// and not acknowledged may be there once; nothing else may. It reports at most ten differences.
func (l *ledger) compare(rows []row) (report, error) {
	var r report
	var errs []error
	differ := func(format string, args ...any) {
		if len(errs) < 10 {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	seen := make(map[entry]bool, len(rows))
	for _, row := range rows {
		e := entry{row.writer, row.seq}
		if e.writer < 0 || e.writer >= writers || e.seq < 0 || e.seq >= len(l.pages[e.writer]) {
			differ("record %x (writer %d, number %d) was never sent", row.id, e.writer, e.seq)
			continue
		}
		if seen[e] {
			differ("writer %d, number %d is there twice", e.writer, e.seq)
		}
		seen[e] = true
		switch id := l.pages[e.writer][e.seq]; id {
		case "":
			r.unacknowledged++
		case base64.URLEncoding.EncodeToString(row.id):
		default:
			differ("writer %d, number %d was acknowledged as %s, not as %x", e.writer, e.seq, id, row.id)
		}
		if row.body != e.body() {
			differ("writer %d, number %d holds %q", e.writer, e.seq, row.body)
		}
	}
	for w, page := range l.pages {
		r.sent += len(page)
		for seq, id := range page {
			if id == "" {
				continue
			}
			r.acknowledged++
			if !seen[entry{w, seq}] {
				differ("writer %d, number %d (%s) was acknowledged and is lost", w, seq, id)
			}
		}
	}
	return r, errors.Join(errs...)
}

// readLast reads each writer's last acknowledged record over HTTP.
func (l *ledger) readLast(ctx context.Context, srv *server) error {
	for w, page := range l.pages {
		for seq := len(page) - 1; seq >= 0; seq-- {
			if page[seq] == "" {
				continue
			}
			if err := read(ctx, srv, page[seq]); err != nil {
				return fmt.Errorf("writer %d, number %d: %w", w, seq, err)
			}
			break
		}
	}
	return nil
}

func read(ctx context.Context, srv *server, id string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.url("/api/records/v1/entry/"+id), nil)
	if err != nil {
		return err
	}
	res, err := srv.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || !strings.Contains(string(body), id) {
		return fmt.Errorf("read %s answered %s: %q", id, res.Status, body)
	}
	return nil
}

// TestLedgerCompare makes sure that a loss would be seen.
func TestLedgerCompare(t *testing.T) {
	t.Parallel()
	id := func(e entry) []byte { return []byte{byte(e.writer), byte(e.seq)} }
	stored := func(e entry) row { return row{id(e), e.writer, e.seq, e.body()} }
	var book ledger
	acked, later, doubtful := book.next(3), book.next(3), book.next(4)
	book.acknowledge(acked, base64.URLEncoding.EncodeToString(id(acked)))
	book.acknowledge(later, base64.URLEncoding.EncodeToString(id(later)))
	torn := stored(later)
	torn.body = torn.body[:20]
	renamed := stored(later)
	renamed.id = []byte("other")

	tests := []struct {
		name string
		rows []row
		want string // part of the error; "" for none
	}{
		{"all", []row{stored(acked), stored(later)}, ""},
		{"with a doubtful one", []row{stored(acked), stored(later), stored(doubtful)}, ""},
		{"lost", []row{stored(acked)}, "writer 3, number 1 (AwE=) was acknowledged and is lost"},
		{"lost everything", nil, "number 0"},
		{"twice", []row{stored(acked), stored(later), stored(later)}, "is there twice"},
		{"invented", []row{stored(acked), stored(later), stored(entry{5, 0})}, "was never sent"},
		{"torn", []row{stored(acked), torn}, "holds"},
		{"other id", []row{stored(acked), renamed}, "was acknowledged as"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := book.compare(tt.rows)
			if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want %q", err, tt.want)
			}
			if err == nil {
				if want := (report{sent: 3, acknowledged: 2, unacknowledged: len(tt.rows) - 2}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
		})
	}
}
