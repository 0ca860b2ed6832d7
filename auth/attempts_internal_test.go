package auth

import (
	"context"
	"testing"

	"github.com/bedplate/bedplate/auth/internal/throttle"
)

// Who has lined up when the last attempt ends is woken, although it did not wait yet.
func TestAttemptsWake(t *testing.T) {
	t.Parallel()
	a := newAttempts()
	running, late := []throttle.Check{{Scope: "account", Subject: "ada"}}, []throttle.Check{{Scope: "account", Subject: "ada"}}
	a.lineUp(running)
	changed := a.lineUp(late)
	if late[0].Ahead != 1 {
		t.Fatalf("%d are ahead", late[0].Ahead)
	}
	a.end(running)
	a.stepBack(late)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whoever is not woken waits in vain
	for range 100 {
		if a.await(ctx, changed) {
			return
		}
	}
	t.Error("nobody wakes it")
}
