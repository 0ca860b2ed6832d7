package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/listquery"
)

// ErrGone is returned by a [View] that nobody may see any more, because its
// API does not fit the schema.
var ErrGone = errors.New("records: there is nothing to subscribe to any more")

var errWebSocket = badRequest("ws unsupported")

// everyRecord stands in a path for all records of an API.
const everyRecord = "*"

// A Subscription is a request for the changes of an API that was found to be
// permitted.
type Subscription struct {
	View   *View
	User   any // id of the caller: nil, int64, string or []byte
	Record any // key of the one record to watch, as it is stored; nil: all
}

// Subscribe checks a request for the changes of an API: of all its records
// ("*"), narrowed by the filter in rawQuery as a list is, or of one. Whoever
// makes it comes from ctx, see Config.Caller.
//
// An [Error] tells the client why it is refused: 405 without such an API, 403
// if it has no Subscriptions, 400 for a query, filter or id that is not one,
// 403 without permission to read and, with a ReadRule, for a record that the
// caller may not read or that does not exist; without one, 404.
func (s *Service) Subscribe(ctx context.Context, api, record, rawQuery string) (*Subscription, error) {
	p, err := s.plan(api)
	if err != nil {
		return nil, err
	}
	user, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if p.live == nil {
		return nil, ErrDenied
	}
	filter, err := subscriptionQuery(rawQuery)
	if err != nil {
		return nil, err
	}
	sub := &Subscription{User: user.id}
	if record == everyRecord {
		if !p.allows(Read, user) {
			return nil, ErrDenied
		}
	} else {
		filter = nil // of no use for a record
		if sub.Record, err = s.watchable(p, user, record); err != nil {
			return nil, err
		}
	}
	sub.View, err = newView(s, p, filter)
	return sub, err
}

// subscriptionQuery reads the filter. Other parameters are for others, or for
// lists.
func subscriptionQuery(rawQuery string) (*listquery.Filter, error) {
	filter, err := listquery.ParseFilter(rawQuery)
	if err != nil {
		return nil, errQuery.because(err)
	}
	values, _ := url.ParseQuery(rawQuery) // as far as it takes it for well-formed
	if ws, _ := strconv.ParseBool(values.Get("ws")); ws {
		return nil, errWebSocket
	}
	return filter, nil
}

// watchable returns the key of a record that user may read.
func (s *Service) watchable(p *plan, user caller, id string) (key driver.Value, err error) {
	r, err := p.request(user, id)
	if err != nil {
		return nil, err
	}
	if !p.allows(Read, user) {
		return nil, ErrDenied
	}
	// The key as it is stored: the id may have found it in another case.
	err = s.db.Query(context.Background(), p.live.watch.sql, p.live.watch.bind(r), func(row []driver.Value) error {
		key = row[0]
		return nil
	})
	switch {
	case err != nil:
		return nil, refusal(err, p.read != nil)
	case key == nil:
		return nil, missing(p.read)
	}
	return key, nil
}

// refusedFilter turns the refusal of a filter into that of a subscription.
func refusedFilter(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusBadRequest {
		return errQuery.because(err)
	}
	return err
}

// canonical returns a text that is the same for filters that mean the same,
// apart from the order of their terms, and for no others.
func canonical(f *listquery.Filter) string {
	if f == nil {
		return ""
	}
	if f.Bool == 0 {
		return fmt.Sprintf("%q %d %q", f.Column, f.Op, f.Value)
	}
	parts := make([]string, len(f.Children))
	for i, child := range f.Children {
		parts[i] = canonical(child)
	}
	slices.Sort(parts)
	return fmt.Sprintf("%d(%s)", f.Bool, strings.Join(slices.Compact(parts), ","))
}
