package tlsauto

import "time"

// SetPauses sets those before what has been issued is fetched again.
func (a *ACME) SetPauses(pauses ...time.Duration) { a.pauses = pauses }
