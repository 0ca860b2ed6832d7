package acmetest

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// managed is tlsauto with its default issuer, or with the one that does all of ACME itself.
func managed(issuer string) subject {
	return subject{"tlsauto with " + issuer, true, func(t *testing.T, s setup) (*instance, error) {
		s.complete()
		config := tlsauto.Config{
			Names:      s.names,
			OnDemand:   s.policy,
			Issuers:    []tlsauto.Issuer{newIssuer(t, issuer, s)},
			Store:      s.store,
			AdoptDelay: s.slow,
		}
		if s.slow == 0 {
			config.AdoptDelay = -1
		}
		if s.patience > 0 {
			config.Backoff = func(int) time.Duration { return s.patience }
		}
		return startManager(t, s, config)
	}}
}

func newIssuer(t *testing.T, issuer string, s setup) tlsauto.Issuer {
	d := directory(t, s.ca, s.who)
	d.Email = s.email
	if issuer == "Autocert" {
		return &tlsauto.Autocert{Directory: d}
	}
	a := &tlsauto.ACME{Directory: d}
	if s.http01 {
		a.Challenges = []string{"http-01"}
	}
	return a
}

func directory(t *testing.T, ca *CA, who string) tlsauto.Directory {
	return tlsauto.Directory{URL: ca.URL, AgreeTOS: true, Client: ca.client(t, who)}
}

// issuers are those of the package that speak ACME.
var issuers = []string{"Autocert", "ACME"}

// mustRun is startManager for a configuration that has to be right. What it leaves out is set up.
func mustRun(t *testing.T, s setup, config tlsauto.Config) *instance {
	t.Helper()
	s.complete()
	if config.Issuers == nil {
		config.Issuers = []tlsauto.Issuer{&tlsauto.ACME{Directory: directory(t, s.ca, s.who)}}
	}
	if config.Store == nil {
		config.Store = s.store
	}
	if config.AdoptDelay == 0 {
		config.AdoptDelay = -1
	}
	if config.Backoff == nil {
		config.Backoff = func(int) time.Duration { return s.patience }
	}
	i, err := startManager(t, s, config)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// startManager runs a Manager and its site. Failures of the test are shown with what has happened.
func startManager(t *testing.T, s setup, config tlsauto.Config) (*instance, error) {
	t.Helper()
	s.complete()
	var mu sync.Mutex
	var events []tlsauto.Event
	config.Events = func(e tlsauto.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}
	config.Logger = slog.New(slog.DiscardHandler)
	if config.AttemptTimeout == 0 {
		config.AttemptTimeout = s.attempt
	}
	config.WaitFirst, config.Now = s.first, s.clock.now
	m, err := tlsauto.New(config)
	if err != nil {
		return nil, err
	}
	handler := http.NotFoundHandler()
	if s.http01 {
		handler = m.HTTPHandler(nil)
	}
	i := s.serve(t, m.TLSConfig(), handler)
	i.manager, i.clock = m, s.clock
	i.told = func() []tlsauto.Event {
		mu.Lock()
		defer mu.Unlock()
		return append([]tlsauto.Event(nil), events...)
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.Run(ctx); err != nil {
			t.Errorf("%s: Run: %v", s.who, err)
		}
	}()
	stopSite := i.stop
	i.stop = func() {
		cancel()
		<-done
		stopSite()
	}
	t.Cleanup(func() {
		i.stop()
		if t.Failed() {
			for _, e := range i.told() {
				t.Logf("%s: %s %s %v %v", s.who, e.Time.Format("05.000"), e.Kind, e.Names, e.Err)
			}
		}
	})
	return i, nil
}
