package replicator

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// newLoggers returns a logger for this package and one for Litestream, whose Info is of no more
// than Debug interest and whose Debug of none.
func newLoggers(events *eventPipe, redact *redactor) (own, quiet *slog.Logger) {
	h := logHandler{events: events, redact: redact}
	own = slog.New(h)
	h.quiet = true
	return own, slog.New(h)
}

// A logHandler sends records as events.
type logHandler struct {
	events *eventPipe
	redact *redactor
	quiet  bool
	prefix string // of open groups
	attrs  []field
}

type field struct{ name, value string }

func (h logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return !h.quiet || level >= slog.LevelInfo
}

func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	fields := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		fields = h.add(fields, h.prefix, a)
		return true
	})
	object := make(map[string]string, len(fields))
	for _, f := range fields {
		object[f.name] = f.value
	}
	attrs, err := json.Marshal(object)
	if err != nil {
		return err
	}
	level := r.Level
	if h.quiet && level == slog.LevelInfo {
		level = slog.LevelDebug
	}
	h.events.send(wire.Event{Kind: wire.Log, Level: int(level), Text: h.redact.text(r.Message), Attrs: attrs})
	return nil
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		h.attrs = h.add(h.attrs, h.prefix, a)
	}
	return h
}

func (h logHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.prefix += name + "."
	}
	return h
}

// add appends the fields of an attribute, as text without secrets.
func (h logHandler) add(fields []field, prefix string, a slog.Attr) []field {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			fields = h.add(fields, prefix, member)
		}
		return fields
	case slog.KindAny:
		if err, ok := v.Any().(error); ok {
			return append(fields, field{prefix + a.Key, h.redact.text(err.Error())})
		}
		return append(fields, field{prefix + a.Key, h.redact.text(fmt.Sprint(v.Any()))})
	case slog.KindTime:
		return append(fields, field{prefix + a.Key, v.Time().UTC().Format(time.RFC3339Nano)})
	default:
		return append(fields, field{prefix + a.Key, h.redact.text(v.String())})
	}
}

// A redactor takes credentials out of texts.
type redactor struct {
	mu      sync.RWMutex
	secrets []string
}

func newRedactor(o wire.Order) *redactor {
	r := &redactor{}
	r.learn(o)
	return r
}

// leastSecret is the length of the shortest text that is taken for a secret: what is shorter
// protects nothing, and is in every other word.
const leastSecret = 4

// secretVariables are those of the environment in which clients find secrets.
var secretVariables = []string{
	"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	"AZURE_CLIENT_SECRET", "LITESTREAM_AZURE_ACCOUNT_KEY", "LITESTREAM_AZURE_SAS_TOKEN",
	"NATS_PASSWORD", "NATS_TOKEN", "SFTP_PASSWORD", "WEBDAV_PASSWORD",
}

// learn takes the values of the order's environment for secrets, those of secretVariables, and what
// looks like one in its URL.
func (r *redactor) learn(o wire.Order) {
	var secrets []string
	add := func(s string) {
		if len(s) < leastSecret || s == "true" || s == "false" {
			return
		}
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:]} {
			if !slices.Contains(secrets, form) {
				secrets = append(secrets, form)
			}
		}
	}
	for _, value := range o.Env {
		add(value)
		add(signature(value))
	}
	for _, name := range secretVariables {
		value := os.Getenv(name)
		add(value)
		add(signature(value))
	}
	if u, err := url.Parse(o.URL); err == nil {
		if password, ok := u.User.Password(); ok {
			add(password)
		}
		if u.Scheme != "sftp" && u.Scheme != "abs" { // there the name is an account
			add(u.User.Username())
		}
		for name, values := range u.Query() {
			if secretParameter(name) {
				for _, value := range values {
					add(value)
				}
			}
		}
	}
	// Longer ones first, as one may be a part of another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets = secrets
}

// signature returns the secret part of a SAS token, whose parameters the client writes in another
// order into the URLs that are in its errors.
func signature(token string) string {
	parameters, err := url.ParseQuery(strings.TrimPrefix(token, "?"))
	if err != nil {
		return ""
	}
	return parameters.Get("sig")
}

// secretParameter reports whether the parameter of a URL may hold a credential.
func secretParameter(name string) bool {
	name = strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	for _, part := range []string{"secret", "key", "token", "password", "passwd", "pass", "seed", "jwt", "sas", "sig", "cred", "auth"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// text returns s without secrets.
func (r *redactor) text(s string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, secret := range r.secrets {
		s = strings.ReplaceAll(s, secret, "***")
	}
	return s
}
