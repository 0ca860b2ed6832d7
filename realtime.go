package bedplate

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/problem"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// hasRealtime reports whether there is anything to subscribe to.
func (cfg Config) hasRealtime() bool {
	return cfg.Realtime != nil || slices.ContainsFunc(cfg.Records, func(a records.API) bool { return a.Subscriptions })
}

// checkRealtime reports the fields of Realtime that the other parts fill in.
func (cfg Config) checkRealtime(bad func(text string)) {
	if cfg.Realtime == nil {
		return
	}
	if cfg.Realtime.Subscribe != nil {
		bad("Realtime.Subscribe is for programs without Records: leave it out")
	}
	if cfg.Auth != nil && (cfg.Realtime.Identify != nil || cfg.Realtime.Check != nil) {
		bad("Realtime.Identify and Realtime.Check are those of Auth: leave them out")
	}
}

// newRealtime joins realtime with the record APIs and the sign-in.
func (b *Backend) newRealtime(cfg Config) (*realtime.Service, error) {
	var c realtime.Config
	if cfg.Realtime != nil {
		c = *cfg.Realtime
	}
	c.Subscribe = b.subscribe
	if c.Logger == nil {
		c.Logger = cfg.Logger
	}
	switch {
	case b.Auth != nil:
		c.Identify, c.Check = identify, b.checkIdentities
		if c.Proxies == 0 && c.TrustedProxies == nil {
			c.Proxies, c.TrustedProxies = cfg.Auth.Proxies, cfg.Auth.TrustedProxies
		}
		if c.Now == nil {
			c.Now = cfg.Auth.Now // which has set the times of the credentials
		}
	case cfg.Caller != nil && c.Identify == nil:
		c.Identify = func(ctx context.Context) realtime.Identity {
			return realtime.Identity{User: userName(cfg.Caller(ctx).ID)}
		}
	}
	return realtime.New(b.DB, c)
}

// identify is the Identify of a backend with Auth.
func identify(ctx context.Context) realtime.Identity {
	u := auth.FromContext(ctx)
	if u == nil {
		return realtime.Identity{}
	}
	return realtime.Identity{User: u.ID.String(), Expires: u.Expires, Value: u}
}

// checkIdentities is the Check that goes with identify.
func (b *Backend) checkIdentities(ctx context.Context, ids []realtime.Identity) ([]bool, error) {
	users := make([]*auth.User, len(ids))
	for i, id := range ids {
		users[i], _ = id.Value.(*auth.User)
	}
	return b.Auth.Current(ctx, users)
}

// userName is the ID of a records.Caller as text; "" is anonymous.
func userName(id any) string {
	switch id := id.(type) {
	case nil:
		return ""
	case []byte:
		return hex.EncodeToString(id)
	}
	return fmt.Sprint(id)
}

// subscribe is the Subscribe of a backend.
func (b *Backend) subscribe(r *http.Request, api, record string) (*realtime.Subscription, error) {
	s, err := b.Records.Subscribe(r.Context(), api, record, r.URL.RawQuery)
	if err != nil {
		var e *records.Error
		if errors.As(err, &e) {
			return nil, &realtime.Error{Status: e.Status, Text: e.Text, Cause: err}
		}
		return nil, err
	}
	return &realtime.Subscription{View: view{s.View}, User: s.User, Record: s.Record}, nil
}

// A view is what a record API shows, as package realtime knows it.
type view struct{ *records.View }

func (v view) Judge(q *sqlite.Scratch, changes []*sqlite.Change, users []any, see func(change, user int, old bool)) error {
	return gone(v.View.Judge(q, changes, users, see))
}

func (v view) Err() error { return gone(v.View.Err()) }

// gone tells realtime that nobody may see a view any more.
func gone(err error) error {
	if errors.Is(err, records.ErrGone) {
		return realtime.ErrGone
	}
	return err
}

// realtimePrefix is where application channels live.
const realtimePrefix = "/api/realtime/v1"

// mountRealtime registers the routes of Realtime that are not below those of
// Records.
func (b *Backend) mountRealtime(mux *http.ServeMux) {
	mux.HandleFunc(realtimePrefix, notFound)
	mux.HandleFunc(realtimePrefix+"/", notFound)
	mux.Handle(realtimePrefix+"/{channel}", b.behindAuth(only(http.MethodGet, b.Realtime.ServeChannel)))
	mux.Handle("POST "+realtimePrefix+"/ticket", b.behindAuth(http.HandlerFunc(b.Realtime.ServeTicket)))
}

// only refuses requests with other methods.
func only(method string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		next(w, r)
	})
}

// recordAPIs are the record APIs with their subscriptions. Those are told
// apart here rather than by a pattern of the mux, which could not stand beside
// a handler that the application has for an API of its own.
func (b *Backend) recordAPIs() http.Handler {
	apis := b.Records.At(recordsPrefix)
	stream := only(http.MethodGet, b.serveSubscription)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if api, record, ok := splitSubscription(r.URL); ok {
			r.SetPathValue("api", api)
			r.SetPathValue("record", record)
			stream.ServeHTTP(w, r)
			return
		}
		apis.ServeHTTP(w, r)
	})
}

func (b *Backend) serveSubscription(w http.ResponseWriter, r *http.Request) {
	if b.Realtime != nil {
		b.Realtime.ServeRecords(w, r)
		return
	}
	// No API has any, so this is a refusal.
	status, text := http.StatusForbidden, ""
	_, err := b.Records.Subscribe(r.Context(), r.PathValue("api"), r.PathValue("record"), r.URL.RawQuery)
	var e *records.Error
	if errors.As(err, &e) {
		status, text = e.Status, e.Text
	}
	problem.Write(w, r, status, text)
}

// splitSubscription takes the path of a subscription apart:
// /{api}/subscribe/{record} below recordsPrefix, where the record may hold any
// character in percent-encoding.
func splitSubscription(u *url.URL) (api, record string, ok bool) {
	if !strings.Contains(u.Path, "/subscribe/") {
		return "", "", false
	}
	api, record, ok = strings.Cut(strings.TrimPrefix(u.EscapedPath(), recordsPrefix+"/"), "/subscribe/")
	if !ok || api == "" || record == "" || strings.Contains(api, "/") || strings.Contains(record, "/") {
		return "", "", false
	}
	var errs [2]error
	api, errs[0] = url.PathUnescape(api)
	record, errs[1] = url.PathUnescape(record)
	return api, record, errs == [2]error{}
}
