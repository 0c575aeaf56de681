//! Rules of the room `physdev`.

crate::rules! {
    IOPL_RANGE = "PHY-01", "The I/O privilege level is 0 to 3", "Xen: public/physdev.h, PHYSDEVOP_set_iopl";
    IO_BITMAP_RANGE = "PHY-02", "An I/O bitmap covers at most 65536 ports, and lies in the guest's part of the address space", "Xen: public/physdev.h, PHYSDEVOP_set_iobitmap";
    NO_SUCH_PIRQ = "PHY-03", "The physical interrupt must be one that was mapped to the domain (PHYSDEVOP_map_pirq)",
        "Xen: public/physdev.h";
    PIRQ_NOT_PERMITTED = "PHY-04", "The domain must have been given the interrupt (XEN_DOMCTL_irq_permission, PHYSDEVOP_map_pirq)",
        "Xen: -EPERM of irq_access_permitted";
    PIRQ_BOUND = "PHY-05", "A physical interrupt is bound to one port of the domain", "Xen: EVTCHNOP_bind_pirq, -EEXIST";
    PIRQ_NOT_SHARED = "PHY-06", "An interrupt line is shared only by domains that all agreed to share it",
        "Xen: BIND_PIRQ__WILL_SHARE, -EBUSY";
    NO_SUCH_LINE = "PHY-07", "The global system interrupt must exist on this machine", "Xen: PHYSDEVOP_setup_gsi, -EINVAL";
    LINE_SET_UP = "PHY-08", "The wiring of a global system interrupt is set once", "Xen: PHYSDEVOP_setup_gsi, -EEXIST";
    PIRQ_TAKEN = "PHY-09", "The number asked for must not be mapped to another interrupt", "Xen: PHYSDEVOP_map_pirq";
    MAP_KIND = "PHY-10", "An interrupt is mapped as line, MSI or MSI-X", "Xen: public/physdev.h, MAP_PIRQ_TYPE_*";
    NO_FREE_PIRQ = "PHY-11", "A free interrupt number and a free vector must be left", "Xen: PHYSDEVOP_map_pirq, -ENOSPC";
    NO_MESSAGE_CAPABILITY = "PHY-12", "The device must be there and have the MSI or MSI-X capability that is asked for",
        "PCI 3.0 §6.8";
    MESSAGE_ENTRY = "PHY-13", "The MSI-X entry must be in the device's table, and the table in memory that the device decodes",
        "PCI 3.0 §6.8.2";
    ONE_MESSAGE = "PHY-14", "A device gets one MSI message: several need interrupt remapping", "Xen: MAP_PIRQ_TYPE_MULTI_MSI, -EOPNOTSUPP";
    EOI_MAP_ONCE = "PHY-15", "The page that says which interrupts need an EOI is registered once", "Xen: PHYSDEVOP_pirq_eoi_gmfn, -EBUSY";
    APIC_REGISTER = "PHY-16", "dom0 reads the I/O APIC's id and version; its routing is set by setup_gsi and map_pirq",
        "Xen: PHYSDEVOP_apic_read, PHYSDEVOP_apic_write";
    MESSAGE_TAKEN = "PHY-18", "A message of a device is mapped once", "Xen: PHYSDEVOP_map_pirq, -EEXIST";
    LINE_OF_CONSOLE = "PHY-19", "The interrupt line of the hypervisor's console is not for domains", "Xen: pirq_guest_bind, -EBUSY";
}
