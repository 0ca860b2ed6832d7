package tlsauto

import "time"

// An Event is something that has happened to a certificate.
type Event struct {
	Kind     EventKind
	Time     time.Time
	Names    []string  // of the certificate; nil for ClientCAs
	Issuer   string    // its ID, or the certificate file; "" if there is none
	NotAfter time.Time // of the certificate that is meant; zero if there is none
	Next     time.Time // when the next attempt is made, or, of ReloadFailed, the pair becomes valid; zero if none is planned
	Err      error     // why, of all kinds that need a reason; never has a key in it
}

// An EventKind says what has happened.
type EventKind string

// The kinds of events.
const (
	Loaded        EventKind = "loaded"         // from the store, at the start or because another process has obtained it
	Obtaining     EventKind = "obtaining"      // an attempt begins
	Obtained      EventKind = "obtained"       // a new certificate has come
	Adopted       EventKind = "adopted"        // it is served from now on
	StandingIn    EventKind = "standing_in"    // another certificate of the store is served for these names, as that for them all is missing or has expired
	Failed        EventKind = "failed"         // an attempt has failed, or a certificate of the store cannot be used
	StoreFailed   EventKind = "store_failed"   // something could not be read or stored; the certificate is served all the same
	Expiring      EventKind = "expiring"       // less than a sixth of the life is left; again for each hour, and when it has expired
	RenewingEarly EventKind = "renewing_early" // the authority wants it renewed now, as before it revokes
	Refused       EventKind = "refused"        // a name on demand, by OnDemand or since there are too many; at most 60 are told a minute
	Dropped       EventKind = "dropped"        // a certificate on demand that nobody uses, or that OnDemand refuses
	Reloaded      EventKind = "reloaded"       // Files or ClientCAFile have changed
	ReloadFailed  EventKind = "reload_failed"  // they have, and what they hold is refused
	Doubtful      EventKind = "doubtful"       // a certificate is served that some clients may refuse, as for a missing intermediate, or that was due when it came, as by a clock that is wrong
)
