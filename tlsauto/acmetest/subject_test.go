package acmetest

import (
	"context"
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/bedplate/bedplate/tlsauto"
)

// A subject is a way to have certificates: autocert on its own, or tlsauto with one of its issuers.
type subject struct {
	name    string
	patient bool // it is waited for as long as it takes: only autocert is known to fail
	start   func(t *testing.T, s setup) (*instance, error)
}

// setup is how a subject is to be set up.
type setup struct {
	ca    *CA
	names []string
	store tlsauto.Store // default: one in memory

	who    string // the name of this instance for gate and router; default "a"
	http01 bool   // the only challenge that gets through is HTTP-01
	protos bool   // somebody sets NextProtos for HTTP alone

	policy   func(ctx context.Context, name string) error // what names there may be besides
	email    string
	slow     time.Duration // how slow the clocks of clients may be
	clock    *clock        // that of tlsauto; default: a right one
	first    time.Duration // how long handshakes of tlsauto wait for a first certificate; default: its own
	attempt  time.Duration // the longest attempt; default a minute
	patience time.Duration // the pause after a failure; default 300 ms, negative: that of the subject
}

// An instance is a server that a subject has started.
type instance struct {
	*site
	config *tls.Config
	stop   func()

	// Of tlsauto only.
	manager *tlsauto.Manager
	clock   *clock
	told    func() []tlsauto.Event // what its operator was told
}

// within is how long to wait for something: atMost for autocert, which does not do it at all, and otherwise for
// patience.
func (s subject) within(atMost time.Duration) time.Duration {
	return client{patient: s.patient}.within(atMost)
}

// living is an authority whose certificates live that long for autocert, which is to be caught out by that, and
// otherwise for months.
func (s subject) living(life time.Duration) caConfig {
	if s.patient {
		return caConfig{}
	}
	return caConfig{Life: life}
}

func (s subject) mustStart(t *testing.T, c setup) *instance {
	t.Helper()
	i, err := s.start(t, c)
	if err != nil {
		t.Fatalf("start %s: %v", s.name, err)
	}
	return i
}

// client is one that verifies a name against the roots of an authority.
func (i *instance) client(ca *CA, name string) client {
	return client{addr: i.TLS, name: name, roots: ca.Roots, patient: i.manager != nil}
}

// wasTold reports whether the operator was told of an event of a kind.
func (i *instance) wasTold(kind tlsauto.EventKind) bool {
	if i.told == nil {
		return false
	}
	for _, e := range i.told() {
		if e.Kind == kind {
			return true
		}
	}
	return false
}

func (s *setup) complete() {
	if s.store == nil {
		s.store = tlsauto.NewMemoryStore()
	}
	if s.who == "" {
		s.who = "a"
	}
	if s.clock == nil {
		s.clock = &clock{}
	}
	if s.attempt == 0 {
		s.attempt = time.Minute
	}
	if s.patience == 0 {
		s.patience = 300 * time.Millisecond
	}
}

// serve starts the site of an instance.
func (s *setup) serve(t *testing.T, config *tls.Config, plain http.Handler) *instance {
	t.Helper()
	if s.http01 {
		config = withoutALPN(config)
	}
	if s.protos {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	web, stop := newSite(t, s.who, config, plain)
	s.ca.Router.add(web)
	i := &instance{site: web, config: config}
	i.stop = func() {
		s.ca.Router.remove(web)
		stop()
	}
	return i
}

// plain is autocert as its documentation shows it.
func plain() subject {
	return subject{"autocert", false, func(t *testing.T, s setup) (*instance, error) {
		s.complete()
		m := &autocert.Manager{
			Prompt:     autocert.AcceptTOS,
			Cache:      s.store,
			HostPolicy: autocert.HostWhitelist(s.names...),
			Email:      s.email,
			Client:     &acme.Client{DirectoryURL: s.ca.URL, HTTPClient: s.ca.client(t, s.who)},
		}
		if s.policy != nil {
			m.HostPolicy = s.policy
		}
		handler := http.NotFoundHandler()
		if s.http01 {
			handler = m.HTTPHandler(nil)
		}
		return s.serve(t, m.TLSConfig(), handler), nil
	}}
}
