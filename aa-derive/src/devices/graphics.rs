//! graphics

use crate::deriver::Deriver;
use crate::error::Error;
use crate::xml::Element;

pub(crate) fn derive(_deriver: &mut Deriver<'_>, _device: &Element<'_>) -> Result<(), Error> {
    Ok(())
}

pub(crate) fn gl(_deriver: &mut Deriver<'_>, _devices: &Element<'_>) -> Result<(), Error> {
    Ok(())
}
