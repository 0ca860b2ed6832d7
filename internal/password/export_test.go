package password

import "context"

// Occupy takes a slot of h until the returned func is called.
func (h *Hasher) Occupy(ctx context.Context) (release func(), err error) {
	if err := h.slots.acquire(ctx); err != nil {
		return nil, err
	}
	return h.slots.release, nil
}

// Waiting returns how many callers wait for a slot of h.
func (h *Hasher) Waiting() int { return int(h.slots.waiting.Load()) }

// WaitingCostly returns how many wait for the one slot of costly hashes.
func (h *Hasher) WaitingCostly() int { return int(h.costly.waiting.Load()) }

// Reparse reads a hash and returns it as written again, if it is known.
func Reparse(s string) (again string, known bool) {
	switch h, ok := parseHash(s); h := h.(type) {
	case argon2Hash:
		return h.String(), ok
	case bcryptHash:
		return h.encoded, ok
	default:
		return "", ok
	}
}

// Common is the embedded list.
func Common() string { return common }
