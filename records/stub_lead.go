package records

// Remove a name from here when you define it in your own file.

import (
	"net/http"
)

func (s *Service) serveSchema(w http.ResponseWriter, r *http.Request, p *plan, user caller) error {
	return ErrNotFound
}
