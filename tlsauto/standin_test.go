package tlsauto_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// pointers are the keys by which the store leads from names to groups.
type pointers struct {
	mu   sync.Mutex
	keys map[string]bool
}

// watch notes what is written to a store.
func (p *pointers) watch(store *faultyStore) {
	p.keys = map[string]bool{}
	store.set(func(_ context.Context, op, key string) error {
		if op == "Put" && strings.Contains(key, "+name+") {
			p.mu.Lock()
			p.keys[key] = true
			p.mu.Unlock()
		}
		return nil
	})
}

func (p *pointers) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.keys))
}

// all returns the serial numbers of what is served for names, "-" for what is not trusted.
func (n *node) all(names ...string) (serials []string) {
	for _, name := range names {
		serial := n.served(name)
		if serial == "" {
			serial = "-"
		}
		serials = append(serials, serial)
	}
	return serials
}

// Whichever way names go from one certificate to another, what is stored is served for them until the next one comes,
// which takes as long as one of its names cannot be proved.
func TestStandIns(t *testing.T) {
	t.Parallel()
	type config struct{ names, groups []string }
	for name, test := range map[string]struct {
		before, after config
		want          string // what stands in for a to d, by the first name of the certificate
	}{
		"a name comes":        {config{nil, []string{"a b"}}, config{nil, []string{"a b c"}}, "a a - -"},
		"another comes first": {config{nil, []string{"a b"}}, config{nil, []string{"c a b"}}, "a a - -"},
		"a name goes":         {config{nil, []string{"a b c"}}, config{nil, []string{"a b"}}, "a a - -"},
		"a group is split":    {config{nil, []string{"a b"}}, config{[]string{"a", "b"}, nil}, "a a - -"},
		"a group is made":     {config{[]string{"a", "b"}, nil}, config{nil, []string{"a b c"}}, "a b - -"},
		"groups are shuffled": {config{nil, []string{"a b", "c d"}}, config{nil, []string{"b d", "c a"}}, "a a c c"},
		"names are others":    {config{nil, []string{"a b"}}, config{[]string{"c"}, []string{"d e"}}, "- - - -"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
				var down atomic.Bool
				ca.fail = func(context.Context, int, *tlsauto.Order) error {
					if down.Load() {
						return errors.New("no")
					}
					return nil
				}
				cfg := func(c config) tlsauto.Config {
					cfg := tlsauto.Config{Issuers: []tlsauto.Issuer{ca}, Store: store}
					for _, name := range c.names {
						cfg.Names = append(cfg.Names, name+".example")
					}
					for _, group := range c.groups {
						var names []string
						for name := range strings.FieldsSeq(group) {
							names = append(names, name+".example")
						}
						cfg.Groups = append(cfg.Groups, names)
					}
					return cfg
				}
				names := []string{"a.example", "b.example", "c.example", "d.example"}
				n := start(t, cfg(test.before))
				pass(time.Second)
				n.stop()
				orders := len(ca.made())
				want := strings.Fields(test.want)
				for _, o := range ca.made() {
					for i, first := range want {
						if o.names[0] == first+".example" {
							want[i] = o.serial
						}
					}
				}

				down.Store(true)
				after := cfg(test.after)
				after.Events = func(e tlsauto.Event) {
					if e.Kind != tlsauto.Adopted {
						return
					}
					for _, name := range e.Names {
						c, err := n.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
						if err != nil || !c.Leaf.NotAfter.Equal(e.NotAfter) {
							t.Errorf("%s has another certificate than that which is adopted", name)
						}
					}
				}
				n = start(t, after)
				pass(time.Second)
				if got := n.all(names...); !slices.Equal(got, want) {
					t.Errorf("served are %s, want %s", got, want)
				}
				if got := len(ca.made()) - orders; got != len(test.after.names)+len(test.after.groups) {
					t.Errorf("%d attempts, want one for each certificate", got)
				}
				standIns := 0
				for _, s := range n.Status().Certificates {
					standIns += len(s.StandIns)
					if s.State != tlsauto.Fallback || s.Serial != "" || len(s.StandIns) > 0 != s.StandInsNotAfter.After(time.Now()) {
						t.Errorf("status %+v", s)
					}
				}
				if want := 4 - strings.Count(test.want, "-"); standIns != want {
					t.Errorf("%d names have another certificate, want %d", standIns, want)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := n.WaitReady(ctx); err == nil {
					t.Error("what stands in counts as ready")
				}
				pass(6 * time.Hour)
				if got := n.all(names...); !slices.Equal(got, want) {
					t.Errorf("hours later served are %s, want %s", got, want)
				}

				down.Store(false)
				for _, s := range n.Status().Certificates {
					if err := n.Renew(s.Names[0]); err != nil {
						t.Fatal(err)
					}
				}
				pass(time.Second)
				for _, s := range n.Status().Certificates {
					if s.State != tlsauto.Trusted || s.StandIns != nil {
						t.Errorf("in the end: %+v", s)
					}
					for _, name := range s.Names {
						if n.served(name) != s.Serial {
							t.Errorf("%s is served for %s, want %s", n.served(name), name, s.Serial)
						}
					}
				}
			})
		})
	}
}

// A client that names no server gets what stands in for the first name.
func TestStandInForTheUnnamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
			if n > 1 {
				return errors.New("no")
			}
			return nil
		}
		cfg := tlsauto.Config{Groups: [][]string{{"a.example", "b.example"}}, Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Second)
		n.stop()
		cfg.Groups = [][]string{{"a.example", "b.example", "c.example"}}
		for _, name := range []string{"", "b.example"} {
			cfg.DefaultName = name
			n = start(t, cfg)
			pass(time.Second)
			if got, want := n.served(""), ca.made()[0].serial; got != want {
				t.Errorf("default name %q: served is %q, want %s", name, got, want)
			}
			n.stop()
		}
	})
}

// What stands in is served no longer than it is valid.
func TestStandInExpires(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 12*time.Hour), tlsauto.NewMemoryStore()
		ca.fail = func(_ context.Context, n int, _ *tlsauto.Order) error {
			if n > 1 {
				return errors.New("no")
			}
			return nil
		}
		cfg := tlsauto.Config{Groups: [][]string{{"a.example", "b.example"}}, Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Hour)
		n.stop()
		cfg.Groups = [][]string{{"a.example"}, {"b.example", "c.example"}}
		n = start(t, cfg)
		pass(11*time.Hour - 2*time.Second)
		if got := n.all("a.example", "b.example", "c.example"); got[0] == "-" || got[1] == "-" || got[2] != "-" {
			t.Errorf("served are %s", got)
		}
		pass(3 * time.Second)
		if got := n.all("a.example", "b.example", "c.example"); !slices.Equal(got, []string{"-", "-", "-"}) {
			t.Errorf("served are %s after the end", got)
		}
		if s := n.status(); s.StandIns != nil || !s.StandInsNotAfter.IsZero() {
			t.Errorf("status %+v", s)
		}
		if got := len(n.of(tlsauto.StandingIn)); got != 2 {
			t.Errorf("%d events, want 2", got)
		}
	})
}

// When what stands in expires, another that is still valid does, and not a minute later.
func TestStandInForTheStandIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), tlsauto.NewMemoryStore()
		cfg := tlsauto.Config{Groups: [][]string{{"a.example", "b.example"}}, Issuers: []tlsauto.Issuer{ca}, Store: store}
		obtain := func() {
			n := start(t, cfg)
			pass(time.Minute)
			n.stop()
		}
		obtain()
		ca.life = 2 * day
		cfg.Names, cfg.Groups = []string{"a.example"}, nil
		obtain()
		orders := ca.made()
		ca.fail = func(context.Context, int, *tlsauto.Order) error { return errors.New("no") }
		cfg.Names, cfg.Groups = nil, [][]string{{"a.example", "c.example"}}
		n := start(t, cfg)
		pass(time.Second)
		if got := n.served("a.example"); got != orders[1].serial {
			t.Fatalf("served is %q of %v", got, orders)
		}
		pass(time.Until(orders[1].at.Add(2*day + time.Second)))
		if got := n.served("a.example"); got != orders[0].serial {
			t.Errorf("when it has expired, served is %q of %v", got, orders)
		}
	})
}

// A certificate that was left for another long ago, and has expired since, is no better than one that is missing.
func TestStandInForTheExpired(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 2*day), tlsauto.NewMemoryStore()
		var down atomic.Bool
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			if down.Load() {
				return errors.New("no")
			}
			return nil
		}
		cfg := tlsauto.Config{Groups: [][]string{{"a.example", "b.example"}}, Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Second)
		n.stop()
		first := cfg
		cfg.Groups = [][]string{{"a.example", "b.example", "c.example"}}
		n = start(t, cfg)
		pass(60 * time.Hour)
		serial := n.served("a.example")
		n.stop()
		down.Store(true)
		n = start(t, first)
		pass(time.Second)
		if got := n.all("a.example", "b.example"); serial == "" || !slices.Equal(got, []string{serial, serial}) {
			t.Errorf("served are %s, want %s twice; %+v", got, serial, n.status())
		}
		if s := n.status(); s.State != tlsauto.Expired || len(s.StandIns) != 2 {
			t.Errorf("status %+v", s)
		}
		down.Store(false)
		pass(30 * time.Minute)
		if s := n.status(); s.State != tlsauto.Trusted || s.StandIns != nil || n.served("b.example") != s.Serial {
			t.Errorf("in the end %s is served, and the status is %+v", n.served("b.example"), s)
		}
	})
}

// While processes of two configurations share a store, each renews its own, and what one of them renews stands in for
// what the other cannot obtain.
func TestStandInOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 12*time.Hour), tlsauto.NewMemoryStore()
		var up atomic.Bool
		ca.fail = func(_ context.Context, _ int, o *tlsauto.Order) error {
			if len(o.Names) == 3 && !up.Load() {
				return errors.New("no")
			}
			return nil
		}
		cfg := tlsauto.Config{
			Groups: [][]string{{"a.example", "b.example"}}, Issuers: []tlsauto.Issuer{ca}, Store: store,
			Backoff: func(int) time.Duration { return 10 * time.Minute },
		}
		grown := cfg
		grown.Groups = [][]string{{"b.example", "c.example", "a.example"}}
		two, three := start(t, cfg), start(t, grown)
		pass(2 * time.Minute)
		issued := func(names int) (serials []string) {
			for _, o := range ca.made() {
				if o.serial != "" && len(o.names) == names {
					serials = append(serials, o.serial)
				}
			}
			return serials
		}
		for renewals := range 3 {
			all, own := three.all("a.example", "b.example", "c.example"), issued(2)
			if last := own[len(own)-1]; len(own) != renewals+1 || !slices.Equal(all, []string{last, last, "-"}) {
				t.Fatalf("after %d renewals %v are issued, and served are %s", renewals, own, all)
			}
			pass(time.Until(two.status().Renewal) + 2*time.Minute)
		}
		up.Store(true)
		pass(15 * time.Minute)
		mine, its := two.served("a.example"), three.served("a.example")
		if len(issued(2)) != 4 || mine != issued(2)[3] || len(issued(3)) != 1 || its != issued(3)[0] {
			t.Errorf("issued are %v and %v, and served %s and %s", issued(2), issued(3), mine, its)
		}
		pass(7 * time.Hour)
		if len(issued(2)) != 5 || len(issued(3)) != 2 {
			t.Errorf("issued are %v and %v", issued(2), issued(3))
		}
	})
}

// What was stored before the store led to it is found once a process has loaded it.
func TestStandInStoredBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		var led pointers
		led.watch(store)
		cfg := tlsauto.Config{Groups: [][]string{{"a.example", "*.b.example", "192.0.2.1"}}, Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Second)
		n.stop()
		keys := led.all()
		if len(keys) != 3 {
			t.Fatalf("keys %v", keys)
		}
		for _, key := range keys[1:] { // one is another's
			if err := store.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.Put(t.Context(), keys[0], []byte("other")); err != nil {
			t.Fatal(err)
		}
		n = start(t, cfg)
		pass(time.Second)
		n.stop()
		if id, err := store.Get(t.Context(), keys[0]); err != nil || string(id) != "other" {
			t.Errorf("what was said already is %q, %v", id, err)
		}
		ca.fail = func(context.Context, int, *tlsauto.Order) error { return errors.New("no") }
		cfg.Groups = [][]string{{"*.b.example", "c.example"}, {"a.example"}}
		n = start(t, cfg)
		pass(time.Second)
		if got, want := n.served("www.b.example"), ca.made()[0].serial; got != want {
			t.Errorf("served is %q, want %s", got, want)
		}
	})
}

// What the store says is not believed: only certificates that have the name, with their key, are served.
func TestStandInRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		var led pointers
		led.watch(store)
		names := []string{"a.example", "b.example", "c.example"}
		cfg := tlsauto.Config{Names: []string{"foreign.example"}, Groups: [][]string{names}, Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Second)
		n.stop()
		keys := led.all()
		if len(keys) != len(names) {
			t.Fatalf("keys %v", keys)
		}
		id, err := store.Get(t.Context(), keys[0])
		if err != nil {
			t.Fatal(err)
		}
		part, _, _ := strings.Cut(keys[0], "name+")
		certificate, err := store.Get(t.Context(), part+"cert+"+string(id))
		if err != nil {
			t.Fatal(err)
		}
		half := certificate[:len(certificate)/2]
		ca.fail = func(context.Context, int, *tlsauto.Order) error { return errors.New("no") }
		cfg.Names = nil
		cfg.Groups = [][]string{append(names, "d.example")}
		for what, test := range map[string]struct {
			pointer, certificate []byte
			want                 bool
		}{
			"as it was":            {id, certificate, true},
			"nowhere":              {[]byte("nobody"), certificate, false},
			"elsewhere":            {[]byte("foreign.example"), certificate, false},
			"nothing":              {[]byte(""), certificate, false},
			"long":                 {[]byte(strings.Repeat("a", 1<<20)), certificate, false},
			"a path":               {[]byte("../" + string(id)), certificate, false},
			"no text":              {[]byte("\x00\xff+"), certificate, false},
			"a broken certificate": {id, half, false},
			"no certificate":       {id, nil, false},
		} {
			for _, key := range keys {
				if err := store.Put(t.Context(), key, test.pointer); err != nil {
					t.Fatal(err)
				}
			}
			if err := store.Put(t.Context(), part+"cert+"+string(id), test.certificate); err != nil {
				t.Fatal(err)
			}
			asked := ""
			store.set(func(_ context.Context, op, key string) error {
				if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789.-_+") != "" || len(key) > 200 {
					asked = key
				}
				return nil
			})
			n := start(t, cfg)
			pass(time.Second)
			if got := n.served("a.example") != ""; got != test.want {
				t.Errorf("%s: served %v", what, got)
			}
			if asked != "" {
				t.Errorf("%s: the store was asked for %q", what, asked)
			}
			n.stop()
		}
	})
}

// A store that hangs where it leads from names to certificates delays an order no longer than one that hangs
// elsewhere.
func TestStandInHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		store.set(func(ctx context.Context, op, key string) error {
			if op == "Get" && strings.Contains(key, "+name+") {
				return blocked(ctx, op, key)
			}
			return nil
		})
		var names []string
		for i := range 100 {
			names = append(names, fmt.Sprintf("n%d.example", i))
		}
		n := start(t, tlsauto.Config{Groups: [][]string{names}, Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(11 * time.Second)
		if s := n.status(); len(ca.made()) != 1 || s.State != tlsauto.Trusted {
			t.Errorf("%d orders; %+v", len(ca.made()), s)
		}
		store.set(nil)
		pass(20 * time.Minute)
		if s := n.status(); s.NotStored != "" {
			t.Errorf("in the end: %+v", s)
		}
	})
}

// A store that takes its time, as one that is far away, leads from all names of a large group to its certificate.
func TestStandInsFromAfar(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		var names []string
		for i := range 99 {
			names = append(names, fmt.Sprintf("n%d.example", i))
		}
		cfg := tlsauto.Config{Names: names, Issuers: []tlsauto.Issuer{ca}, Store: store}
		n := start(t, cfg)
		pass(time.Hour)
		n.stop()
		store.set(func(ctx context.Context, _, _ string) error {
			select {
			case <-time.After(110 * time.Millisecond):
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		var down atomic.Bool
		down.Store(true)
		ca.fail = func(context.Context, int, *tlsauto.Order) error {
			if down.Load() {
				return errors.New("no")
			}
			return nil
		}
		cfg.Names, cfg.Groups = nil, [][]string{append(names, "new.example")}
		n = start(t, cfg)
		pass(10 * time.Minute)
		if got := len(n.status().StandIns); got != len(names) {
			t.Errorf("of %d names %d have a certificate", len(names), got)
		}
		down.Store(false)
		if err := n.Renew("new.example"); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Minute)
		if s := n.status(); s.State != tlsauto.Trusted || s.NotStored != "" {
			t.Errorf("in the end: %+v", s)
		}
	})
}

// What cannot be read of where a name is, as after a key was lost, is written anew.
func TestPointerUnreadable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca, store := newMint(t, 90*day), newFaultyStore()
		var written atomic.Bool
		store.set(func(_ context.Context, op, key string) error {
			if strings.HasSuffix(key, "+name+a.example") {
				written.CompareAndSwap(false, op == "Put")
				if op == "Get" && !written.Load() {
					return errors.New("it cannot be opened")
				}
			}
			return nil
		})
		n := start(t, tlsauto.Config{Groups: [][]string{{"a.example", "b.example"}}, Issuers: []tlsauto.Issuer{ca}, Store: store})
		pass(time.Minute)
		if s := n.status(); s.NotStored != "" || !written.Load() {
			t.Errorf("%+v", s)
		}
	})
}
