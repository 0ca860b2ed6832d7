package acmetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

func obtainsAtStart(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	if !becomes(s.within(5*time.Second), func() bool { return ca.orders() > 0 }) {
		return errors.New("nothing was ordered")
	}
	_, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second)
	return err
}

func renewsWithoutClients(t *testing.T, s subject) error {
	ca := newCA(t, s.living(9*time.Second))
	c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore()}
	i := s.mustStart(t, c)
	leaf, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	i.stop()
	ca.set(lost("a")) // what autocert leaves behind renews, too
	before := ca.orders()
	c.who = "b"
	i = s.mustStart(t, c)
	if s.patient {
		i.makeDue(t)
	}
	if !becomes(s.within(time.Until(leaf.NotAfter)), func() bool { return ca.orders() > before }) {
		return errors.New("it has expired without an order")
	}
	return nil
}

func doesNotPileUp(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	ca.set(hang)
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	impatient := i.client(ca, nameA)
	impatient.timeout = 300 * time.Millisecond
	for asked := false; !asked; asked = ca.asked() > 0 { // else no handshake has come as far as to wait for that
		var clients sync.WaitGroup
		for range 40 {
			clients.Go(func() { impatient.knock(t.Context()) })
		}
		clients.Wait()
	}
	if !becomes(s.within(4*time.Second), func() bool { return i.open.Load() == 0 }) {
		return fmt.Errorf("%d connections of clients that have left are open", i.open.Load())
	}
	return nil
}

func recoversAtOnce(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	ca.set(reset)
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	c := i.client(ca, nameA)
	if _, err := c.connect(t.Context()); err == nil {
		t.Fatal("a certificate from nowhere")
	}
	ca.set(up)
	_, err := c.trusted(t.Context(), 8*time.Second)
	return err
}

func keepsPauseOverRestart(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	ca.set(reset)
	c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore(), patience: -1}
	i := s.mustStart(t, c)
	if _, err := i.client(ca, nameA).connect(t.Context()); err == nil {
		t.Fatal("a certificate from nowhere")
	}
	if i.told != nil && !becomes(patience, func() bool { return i.wasTold(tlsauto.Failed) }) {
		return errors.New("no failure")
	}
	i.stop()
	before := ca.asked()
	i = s.mustStart(t, c)
	i.client(ca, nameA).knock(t.Context())
	if !becomes(time.Second, func() bool { return ca.asked() > before }) {
		return nil
	}
	return errors.New("it has asked the authority again")
}

func answersWhileRefused(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	ca.set(tooMany(time.Hour))
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	_, err := client{addr: i.TLS, name: nameA, timeout: s.within(3 * time.Second)}.connect(t.Context())
	return err
}

func answersAfterExpiry(t *testing.T, s subject) error {
	ca := newCA(t, s.living(4*time.Second))
	c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore(), clock: &clock{}}
	i := s.mustStart(t, c)
	leaf, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	i.stop()
	ca.set(reset)
	if after := leaf.NotAfter.Add(2 * time.Second); s.patient {
		c.clock.set(after)
	} else {
		at(t, after)
	}
	i = s.mustStart(t, c)
	_, err = client{addr: i.TLS, name: nameA, timeout: s.within(3 * time.Second)}.connect(t.Context())
	return err
}

func startsTogether(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	ca.Router.avoid(ca.lastOrderer)
	hold := time.Minute // until both of autocert's are there
	if s.patient {
		hold = time.Second // for another that should not come
	}
	ca.set(together(challengePath, hold))
	store := tlsauto.NewMemoryStore()
	results := make(chan error, 2)
	for _, who := range []string{"a", "b"} {
		i := s.mustStart(t, setup{ca: ca, names: []string{nameA}, store: store, who: who})
		c := i.client(ca, nameA)
		go func() {
			_, err := c.trusted(t.Context(), 12*time.Second)
			results <- err
		}()
	}
	return errors.Join(<-results, <-results)
}

func hangsForOneOnly(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	ca.set(hangFirst(directoryPath))
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA, nameB}, attempt: 4 * time.Second})
	results := make(chan error, 2)
	for _, name := range []string{nameA, nameB} {
		c := i.client(ca, name)
		go func() {
			_, err := c.trusted(t.Context(), 12*time.Second)
			results <- err
		}()
	}
	return errors.Join(<-results, <-results)
}

func tellsOfFailure(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	ca.set(reset)
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	i.client(ca, nameA).knock(t.Context())
	if !becomes(s.within(3*time.Second), func() bool { return i.wasTold(tlsauto.Failed) }) {
		return errors.New("nobody was told")
	}
	return nil
}
