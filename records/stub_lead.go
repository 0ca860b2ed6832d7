package records

// Remove a name from here when you define it in your own file.

import (
)

