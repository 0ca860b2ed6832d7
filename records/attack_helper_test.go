package records_test

import (
	"net/http"

	"github.com/bedplate/bedplate/records"
)

// signedAs sends what comes without a caller as somebody's.
type signedAs struct {
	http.Handler
	who string
}

func (s signedAs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Header.Set("X-Caller", s.who)
	s.Handler.ServeHTTP(w, r)
}

// withTransactions serves the APIs of svc and, at /execute, transactions.
func withTransactions(svc *records.Service) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/execute", svc.ServeTransaction)
	mux.Handle("/", svc)
	return signIn(mux)
}
