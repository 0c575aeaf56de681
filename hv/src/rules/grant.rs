//! Rules of the room `grant`.

crate::rules! {
    COUNT_RANGE = "GNT-01", "A batch has fewer than 2^31 operations; table operations come one at a time",
        "Xen: do_grant_table_op, -EINVAL";
    NO_MODE = "GNT-02", "A mapping is for the CPU, for devices or for both", "Xen: map_grant_ref, GNTST_bad_gntref";
    NO_SUCH_DOMAIN = "GNT-03", "The domain named must exist", "Xen: GNTST_bad_domain";
    NO_HANDLE = "GNT-04", "A domain may have only as many mappings as its maptrack frames hold",
        "Xen: max_maptrack_frames, GNTST_no_space";
    REFERENCE_RANGE = "GNT-05", "The reference must lie in the granting domain's table as far as it is set up",
        "Xen: GNTST_bad_gntref";
    NOT_GRANTED = "GNT-06", "The entry must permit access, and to the domain that asks", "Xen: GNTST_general_error";
    READ_ONLY = "GNT-07", "An entry that grants reading may not be used for writing", "Xen: GNTST_general_error";
    UNSTABLE = "GNT-08", "The granting domain may not change an entry while it is being taken",
        "Xen: \"Shared grant entry is unstable\", GNTST_general_error";
    OTHERS_PIN = "GNT-09", "An entry in use belongs to the domain that uses it, and has at most 65,535 uses",
        "Xen: GNTST_general_error";
    BAD_FRAME = "GNT-10", "The entry's frame must be one of the granting domain", "Xen: GNTST_bad_page";
    FRAME_IN_USE = "GNT-11", "A frame that is granted for writing may not be a page table or a descriptor page",
        "Xen: \"Could not pin grant frame\", GNTST_general_error";
    BAD_HANDLE = "GNT-12", "The handle must be that of a mapping of the caller", "Xen: GNTST_bad_handle";
    DEVICE_ADDRESS = "GNT-13", "The device address must be that of the mapped frame", "Xen: GNTST_bad_dev_addr";
    NOT_PRIVILEGED = "GNT-14", "Only a privileged domain may ask for another's table", "Xen: GNTST_permission_denied";
    TABLE_SIZE = "GNT-15", "A table has at most max_grant_frames frames, and needs memory for them",
        "Xen: gnttab_setup_table, GNTST_general_error";
    VERSION_RANGE = "GNT-16", "There are versions 1 and 2 of the table", "Xen: gnttab_set_version, -EINVAL";
    VERSION_OFFERED = "GNT-17", "A domain chooses no version above the one its toolstack lets it have",
        "Xen: gnttab_set_version, -ENOSYS";
    STATUS_SIZE = "GNT-18", "A table has a status frame for 8 frames of version 2, and none in version 1",
        "Xen: gnttab_get_status_frames, GNTST_general_error";
    COPY_RANGE = "GNT-19", "A copy stays in one page on each side", "Xen: GNTST_bad_copy_arg";
    COPY_BY_FRAME = "GNT-20", "Frames are named only of the calling domain; others grant",
        "Xen: gnttab_copy, GNTST_permission_denied";
    COPY_FRAME = "GNT-21", "A frame that is copied from or to must be the caller's", "Xen: GNTST_bad_page";
    NO_TRANSFER = "GNT-22", "Frames are not transferred; the frame stays the caller's",
        "Xen: gnttab_transfer, GNTST_bad_page";
    SWAP_IN_USE = "GNT-23", "Entries in use are not swapped", "Xen: gnttab_swap_grant_ref, GNTST_eagain";
    FLUSH_RANGE = "GNT-24", "What is flushed lies in one page, and the operation is CLEAN or INVAL",
        "Xen: GNTTABOP_cache_flush, -EINVAL";
    FLUSH_OPERATION = "GNT-25", "A page is flushed by its address, and cannot be invalidated alone",
        "Xen: GNTTABOP_cache_flush, -EOPNOTSUPP on x86";
    FLUSH_FRAME = "GNT-26", "Only a frame that is the caller's or mapped by it is flushed",
        "Xen: GNTTABOP_cache_flush, -EPERM, -EINVAL";
    DYING = "GNT-27", "A domain that is being taken apart grants nothing", "Xen: GNTST_general_error";
    COPY_PART = "GNT-28", "A copy stays in the part of the page that is granted", "Xen: gnttab_copy, GNTST_general_error";
    THROUGH_ONESELF = "GNT-29", "A domain passes on only what another domain granted to it",
        "Xen: gnttab_copy, GNTST_general_error";
    THROUGH_NOBODY = "GNT-30", "An entry that passes a grant on names a domain that exists",
        "Xen: gnttab_copy, GNTST_general_error";
    THROUGH_TWICE = "GNT-31", "What is passed on is not passed on again", "Xen: gnttab_copy, GNTST_general_error";
    VERSION_IN_USE = "GNT-32", "The version changes while no entry but the first eight is in use",
        "Xen: gnttab_set_version, -EBUSY";
    VERSION_RESERVED = "GNT-33", "For version 1, each of the first eight entries means what that version can say",
        "Xen: gnttab_set_version, -ERANGE";
    STATUS_MAPPED = "GNT-34", "For version 1, the domain has no status frame mapped", "Xen: gnttab_set_version, -EBUSY";
    NO_STATUS_MEMORY = "GNT-35", "There must be memory for status frames", "Xen: gnttab_set_version, -ENOMEM";
    NO_PIN_MEMORY = "GNT-36", "There must be memory to note that an entry is in use",
        "this hypervisor's own: Xen notes it in a table beside the grant table";
}
