package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// SubscribeOptions say what [Subscribe] subscribes to, and how. URL and either
// API or Channel are needed.
type SubscribeOptions struct {
	// URL is what the routes of the server are below, as
	// "https://example.org" or "https://example.org/prefix".
	URL string

	// API is the name of a record API whose changes are wanted, Record the id
	// of the one record to watch; "" or "*": all. Filter chooses among all
	// records, with the keys of a list request, as "filter[age][$gte]".
	API, Record string
	Filter      url.Values

	// Channel is the channel of [Service.Publish] to listen to.
	Channel string

	// Since is the position to go on behind: the ID of an [Event], or the
	// Change-Cursor header of a response. "" is from now on.
	Since string

	// Token returns the bearer token for an attempt to connect. After a 401
	// it is asked once more. An error of it is treated like one of the
	// network, unless it is an [Error], which is treated like an answer of
	// the server: with status 401, say, it ends Subscribe. nil: no token.
	Token func(ctx context.Context) (string, error)

	// Client makes the requests; its Timeout is not used. Redirects stay on
	// the origin of URL. nil: a client of its own, with timeouts for
	// connecting.
	Client *http.Client

	// IdleTimeout is how long a server may send nothing, not even a
	// heartbeat or an answer to the request, before Subscribe connects anew;
	// default 45 s, three heartbeats.
	IdleTimeout time.Duration

	// MaxEvent is the greatest event in bytes. A greater one ends Subscribe,
	// as it would come again after every reconnect. Default 8 MiB.
	MaxEvent int

	// MinBackoff and MaxBackoff bound the pause before connecting anew,
	// which doubles with every attempt that brings nothing; default 0.5 s and
	// 30 s. It is longer if the server says so (the retry field of a stream,
	// Retry-After with a status of 429 or 503), though ten minutes at most.
	// Up to half as much again is added at random.
	MinBackoff, MaxBackoff time.Duration

	// Position, if not nil, is called when the position moves without an
	// event: when the first stream begins, and now and then when there is
	// nothing to tell. It is called in turn with the handler.
	Position func(id string)

	// Logger gets why connections end; default slog.Default().
	Logger *slog.Logger
}

// An Event is what a subscriber is told.
type Event struct {
	Op Op

	// Data is the record as it is now or, with OpDelete, as it was; with
	// OpMessage, what was published. It is the handler's to keep.
	Data json.RawMessage

	// Text says more about an OpGap; it may be empty.
	Text string

	// ID is the position to go on behind when this and all earlier events
	// have been dealt with. It is "" if the server has told none. Where one
	// change makes two events, as one of a primary key does, the first has
	// the position before both.
	ID string
}

// Op is what an [Event] tells.
type Op string

const (
	OpInsert  Op = "Insert"  // a record is new, or has a new key
	OpUpdate  Op = "Update"  // a record has changed, or has come into view
	OpDelete  Op = "Delete"  // a record has gone or is out of view
	OpMessage Op = "Message" // an event of a channel
	OpGap     Op = "Gap"     // events are missing here: what is known of the records is to be read again
)

// Subscribe calls handle for every event that there is, in order and each
// once, over as many connections as it takes, until ctx is done, handle
// returns an error or the server refuses. It returns ctx.Err(), the error of
// handle, or why it has given up: an [Error] with the HTTP status for an
// answer of the server other than 429 and 5xx, which are tried again like
// failures of the network; with status 403 also when access is lost to the
// record that is watched. It returns nil when the server says that the
// subscription is over (status 204).
//
// An event counts as dealt with when handle has returned nil. Subscribe calls
// handle from the goroutine it was called in, and reads no further meanwhile;
// it leaves no goroutine behind. Whoever stores the ID of the last event and
// gives it as SubscribeOptions.Since next time misses nothing and, if it is
// stored together with what the event did, does nothing twice. A server that
// tells no positions, as TrailBase, costs an OpGap per reconnect.
func Subscribe(ctx context.Context, o SubscribeOptions, handle func(Event) error) error {
	target, err := o.check(handle)
	if err != nil {
		return fmt.Errorf("realtime: subscribe: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return newClient(ctx, o, target, handle).run(ctx)
}

// check fills in defaults and returns the address to ask.
func (o *SubscribeOptions) check(handle func(Event) error) (*url.URL, error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	base, err := url.Parse(o.URL)
	switch {
	case err != nil:
		errs = append(errs, errors.New("URL cannot be parsed")) // it may hold a password
	case base.Scheme != "http" && base.Scheme != "https", base.Host == "":
		wrong("URL is not an absolute http or https URL")
	case base.User != nil, base.RawQuery != "", base.Fragment != "":
		wrong("URL has a user, query or fragment")
	}
	if (o.API == "") == (o.Channel == "") {
		wrong("either API or Channel is needed")
	}
	if o.API == "" && (o.Record != "" || len(o.Filter) > 0) {
		wrong("Record and Filter go with API")
	}
	if o.Record != "" && o.Record != "*" && len(o.Filter) > 0 {
		wrong("Filter goes with all records, not with one")
	}
	for _, name := range []string{o.API, o.Record, o.Channel} {
		if name == "." || name == ".." {
			wrong("%q is no name", name)
		}
	}
	for key := range o.Filter {
		if !strings.HasPrefix(key, "filter[") {
			wrong("key %q of Filter does not begin with \"filter[\"", key)
		}
	}
	if !validPosition(o.Since) {
		wrong("Since has characters that no position has")
	}
	if handle == nil {
		wrong("there is no handler")
	}
	if o.IdleTimeout < 0 || o.MaxEvent < 0 || o.MinBackoff < 0 || o.MaxBackoff < 0 {
		wrong("a timeout or limit is negative")
	}
	setDefault(&o.IdleTimeout, 45*time.Second)
	setDefault(&o.MaxEvent, 8<<20)
	setDefault(&o.MinBackoff, min(500*time.Millisecond, o.MaxBackoff))
	setDefault(&o.MinBackoff, 500*time.Millisecond)
	setDefault(&o.MaxBackoff, max(30*time.Second, o.MinBackoff))
	if o.MinBackoff > o.MaxBackoff {
		wrong("MinBackoff is above MaxBackoff")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return o.target(base), nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func (o *SubscribeOptions) target(base *url.URL) *url.URL {
	if o.Channel != "" {
		return base.JoinPath("api/realtime/v1", url.PathEscape(o.Channel))
	}
	record := "*"
	if o.Record != "" && o.Record != "*" {
		record = url.PathEscape(o.Record)
	}
	target := base.JoinPath("api/records/v1", url.PathEscape(o.API), "subscribe", record)
	target.RawQuery = o.Filter.Encode()
	return target
}

// headerSafe reports whether a header can carry s as it is.
func headerSafe(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// validPosition reports whether a position can be sent back to a server.
func validPosition(id string) bool { return len(id) <= 1024 && headerSafe(id) }
