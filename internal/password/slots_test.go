package password_test

import (
	"context"
	"encoding/base64"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/bedplate/bedplate/internal/password"
)

// rawKey is the encoded Argon2id of password as it is.
func rawKey(password, salt string, memory, passes uint32) string {
	return base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(password), []byte(salt), passes, memory, 1, 32))
}

// waitUntil yields until the condition holds.
func waitUntil(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the condition does not come to hold")
		}
	}
}

func TestF5_FloodIsTurnedAway(t *testing.T) {
	t.Parallel()
	const slots, queue, callers = 3, 7, 500
	h := newHasher(t, cheap, slots, queue)
	stored := hash(t, h, "secret123.")

	var release []func()
	for range slots {
		r, err := h.Occupy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release = append(release, r)
	}

	var busy, matched, failed atomic.Int32
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			pw := stored
			if i%2 == 0 {
				pw = "" // the unknown users take part
			}
			ok, _, err := h.Verify(t.Context(), pw, "secret123.")
			switch {
			case errors.Is(err, password.ErrBusy):
				busy.Add(1)
			case err == nil && ok == (pw != ""):
				matched.Add(1)
			default:
				failed.Add(1)
			}
		})
	}
	// All slots are still taken: being turned away does not wait for any of them.
	waitUntil(t, func() bool { return busy.Load() == callers-queue && h.Waiting() == queue })
	if matched.Load() != 0 {
		t.Error("a hash was computed without a slot")
	}
	if _, err := h.Hash(t.Context(), "secret123."); !errors.Is(err, password.ErrBusy) {
		t.Errorf("hash: %v, want ErrBusy", err)
	}
	for _, r := range release {
		r()
	}
	wg.Wait()
	if b, m, f := busy.Load(), matched.Load(), failed.Load(); b != callers-queue || m != queue || f != 0 {
		t.Errorf("%d turned away, %d answered, %d failed; want %d, %d, 0", b, m, f, callers-queue, queue)
	}
	if h.Waiting() != 0 {
		t.Errorf("%d still wait", h.Waiting())
	}
	if ok, _ := verify(t, h, stored, "secret123."); !ok {
		t.Error("no match after the flood")
	}
}

func TestF5_AtMostSlotsAtOnce(t *testing.T) {
	t.Parallel()
	const slots, callers = 4, 200
	h := newHasher(t, cheap, slots, callers)
	var now, peak atomic.Int32
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			release, err := h.Occupy(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			n := now.Add(1)
			defer now.Add(-1)
			for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
			}
			runtime.Gosched()
		})
	}
	wg.Wait()
	if peak.Load() > slots {
		t.Errorf("%d at once, want at most %d", peak.Load(), slots)
	}
}

func TestF5_WaitHonoursContext(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap, 1, 5)
	if _, err := h.Hash(ended(t), "secret123."); !errors.Is(err, context.Canceled) {
		t.Errorf("hash with an ended context: %v", err)
	}
	release, err := h.Occupy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, _, err := h.Verify(ctx, "", "secret123.")
		done <- err
	}()
	waitUntil(t, func() bool { return h.Waiting() == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || errors.Is(err, password.ErrBusy) {
		t.Errorf("verify with a context that ends: %v", err)
	}
	if h.Waiting() != 0 {
		t.Errorf("%d still wait", h.Waiting())
	}
}

// Users whose imported hash is very expensive must not take all slots.
func TestF5_CostlyHashesOneAtATime(t *testing.T) {
	t.Parallel()
	const costly = "$argon2id$v=19$m=66000,t=1,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	h := newHasher(t, cheap, 2, 50)
	one, err := h.Occupy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.Occupy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, _, err := h.Verify(t.Context(), costly, "secret123."); err != nil {
				t.Error(err)
			}
		})
	}
	waitUntil(t, func() bool { return h.Waiting() == 1 && h.WaitingCostly() == 2 })
	one()
	other()
	wg.Wait()
}
