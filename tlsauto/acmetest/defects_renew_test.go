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
	ca := newCA(t, s.living(15*time.Second))
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	c := i.client(ca, nameA)
	leaf, err := c.trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	ca.set(reset)
	if s.patient {
		i.makeDue(t)
		if !becomes(patience, func() bool { return i.wasTold(tlsauto.Failed) }) {
			return errors.New("no renewal was tried")
		}
		ca.set(up)
		_, err = c.changes(t.Context(), leaf, patience)
		return err
	}
	at(t, leaf.NotBefore.Add(13*time.Second)) // the renewal was due at 10
	ca.set(up)
	at(t, leaf.NotAfter.Add(time.Second))
	_, err = c.connect(t.Context())
	return err
}

func recoversAfterExpiry(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{Life: 8 * time.Second})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	c := i.client(ca, nameA)
	leaf, err := c.trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	ca.set(reset)
	if n := ca.orders(); n > 1 && !s.patient {
		return fmt.Errorf("%d orders by now, so that another certificate may be good for longer", n)
	}
	at(t, leaf.NotAfter.Add(time.Second))
	ca.set(up)
	_, err = c.trusted(t.Context(), 10*time.Second)
	return err
}

func changesKey(t *testing.T, s subject) error {
	ca := newCA(t, s.living(9*time.Second))
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	c := i.client(ca, nameA)
	old, err := c.trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	if s.patient {
		i.makeDue(t)
	}
	leaf, err := c.changes(t.Context(), old, patience)
	if err != nil {
		t.Fatal(err) // nobody lacks renewals
	}
	if bytes.Equal(leaf.RawSubjectPublicKeyInfo, old.RawSubjectPublicKeyInfo) {
		return errors.New("it has the key of the one before")
	}
	return nil
}

func servesWhatCannotBeStored(t *testing.T, s subject) error {
	ca := newCA(t, s.living(18*time.Second))
	store := newFaultyStore()
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}, store: store})
	c := i.client(ca, nameA)
	old, err := c.trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	set(&store.put, broken)
	if s.patient {
		i.makeUrgent(t) // before that it waits for the store
	}
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
	ca := newCA(t, caConfig{Life: 12 * time.Second})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	leaf, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second)
	if err != nil {
		return err
	}
	i.stop()
	at(t, time.Now().Add(time.Second)) // for a request that was given up on its way
	before := ca.asked()
	at(t, leaf.NotAfter.Add(time.Second))
	if more := ca.asked() - before; more > 0 || !s.patient && ca.orders() > 1 {
		return fmt.Errorf("%d requests after the end, %d orders", more, ca.orders())
	}
	return nil
}

func waitsForSlowClocks(t *testing.T, s subject) error {
	const slow = 5 * time.Second
	ca := newCA(t, s.living(21*time.Second))
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}, slow: slow + time.Second})
	c := i.client(ca, nameA)
	c.clock = func() time.Time { return time.Now().Add(-slow) }
	old, err := c.trusted(t.Context(), 15*time.Second)
	if err != nil {
		return err
	}
	at(t, old.NotBefore.Add(slow+2*time.Second))
	l := startLoad(t, 2, c)
	if s.patient {
		i.makeDue(t)
		becomes(patience, func() bool { return l.certificates() >= 2 })
	} else {
		at(t, old.NotAfter.Add(time.Second))
	}
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
	if !becomes(s.within(6*time.Second), func() bool { return i.wasTold(tlsauto.Doubtful) }) {
		return errors.New("nobody was told")
	}
	return nil
}
