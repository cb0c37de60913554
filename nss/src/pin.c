/* Pins name look-ups to the modules that are part of a static program, before main: see lib.rs. */

#include <features.h>
#include <nss.h>

#if !__GLIBC_PREREQ(2, 34)
#error "static programs need glibc 2.34 or newer, the first with files and dns built in"
#endif

/* A failure, of memory, leaves the look-ups to nsswitch.conf. */
__attribute__((constructor)) static void pin(void) {
	__nss_configure_lookup("hosts", "files dns");
	__nss_configure_lookup("passwd", "files");
}
