from .unet import Unet
def fast_unet(unet: Unet):
    return unet
