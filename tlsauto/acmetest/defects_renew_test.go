package acmetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

func renewsAfterOutage(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{Life: 15 * time.Second})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	c := i.client(ca, nameA)
	leaf, err := c.trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	ca.set(reset)
	at(t, leaf.NotBefore.Add(11*time.Second)) // the renewal was due at 10
	ca.set(up)
	at(t, leaf.NotAfter.Add(time.Second))
	_, err = c.connect(t.Context())
	return err
}

func recoversAfterExpiry(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{Life: 4 * time.Second})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	c := i.client(ca, nameA)
	leaf, err := c.trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	ca.set(reset)
	at(t, leaf.NotAfter.Add(time.Second))
	ca.set(up)
	_, err = c.trusted(t.Context(), 10*time.Second)
	return err
}

func changesKey(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{Life: 9 * time.Second})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	c := i.client(ca, nameA)
	old, err := c.trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	leaf, err := c.changes(t.Context(), old, 9*time.Second)
	if err != nil {
		t.Fatal(err) // nobody lacks renewals
	}
	if bytes.Equal(leaf.RawSubjectPublicKeyInfo, old.RawSubjectPublicKeyInfo) {
		return errors.New("it has the key of the one before")
	}
	return nil
}

func servesWhatCannotBeStored(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{Life: 18 * time.Second})
	store := newFaultyStore()
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}, store: store})
	c := i.client(ca, nameA)
	old, err := c.trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	set(&store.put, broken)
	_, err = c.changes(t.Context(), old, 19*time.Second)
	return err
}

func storesLater(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	store := newFaultyStore()
	c := setup{ca: ca, names: []string{nameA}, store: store}
	// The account is there already: without it autocert does not begin.
	first := s.mustStart(t, setup{ca: ca, names: []string{nameB}, store: store})
	if _, err := first.client(ca, nameB).trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	first.stop()

	set(&store.put, broken)
	i := s.mustStart(t, c)
	if _, err := i.client(ca, nameA).trusted(t.Context(), 30*time.Second); err != nil {
		return err
	}
	set(&store.put, nil)
	i.stop()
	before := ca.orders()
	i = s.mustStart(t, c)
	if _, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	if more := ca.orders() - before; more > 0 {
		return fmt.Errorf("%d orders for what was there", more)
	}
	return nil
}

func stops(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{Life: 6 * time.Second})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	leaf, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	i.stop()
	at(t, time.Now().Add(200*time.Millisecond)) // for a request that was given up on its way
	before := ca.asked()
	at(t, leaf.NotAfter)
	if more := ca.asked() - before; more > 0 {
		return fmt.Errorf("%d requests after the end", more)
	}
	return nil
}

func waitsForSlowClocks(t *testing.T, s subject) error {
	const slow = 2 * time.Second
	ca := newCA(t, caConfig{Life: 18 * time.Second})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}, slow: slow + 500*time.Millisecond})
	c := i.client(ca, nameA)
	c.clock = func() time.Time { return time.Now().Add(-slow) }
	old, err := c.trusted(t.Context(), 12*time.Second)
	if err != nil {
		return err
	}
	at(t, old.NotBefore.Add(5*time.Second))
	l := startLoad(t, 2, c)
	at(t, old.NotAfter.Add(time.Second))
	if sum := l.stop(); sum.Failed > 0 || len(sum.Serials) < 2 {
		return errors.New(sum.String())
	}
	return nil
}

func noticesMissingIntermediate(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	ca.set(leafOnly)
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	i.client(ca, nameA).knock(t.Context())
	if !becomes(6*time.Second, func() bool { return i.wasTold(tlsauto.Doubtful) }) {
		return errors.New("nobody was told")
	}
	return nil
}
